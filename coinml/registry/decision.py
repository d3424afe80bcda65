"""A person's decision that a version is the champion, recorded with who, when and why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from coinml.errors import InvalidInputError
from coinml.registry.versions import set_aside
from coinml.runtime.escaping import printable
from coinml.runtime.process_identity import user_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

DECIDED = "decided"
"""The tag `gate` of a version that a person decided for, until its alias is set."""

_LONGEST = 2000

OF_THE_GATE = ("gate_try", "gate_level", "test_coverage")
OF_A_PERSON = ("decided_by", "decided_at", "decided_because")
"""Tags that only the last decision on a version needs: with both, it would have eleven."""


def checked_decision(
    versions: Sequence[int] | None, because: str, *, replace_lost: bool
) -> tuple[int, str]:
    """The version that a person decides for, and the reason on one line.

    Raises:
        InvalidInputError: The reason is empty or too long, there is not exactly one version, or
            the gate is to be asked as well.
    """
    why = printable(" ".join(because.split()))
    if not why:
        raise InvalidInputError(f"--because {because!r}: say why this version is to be champion")
    if len(why) > _LONGEST:
        raise InvalidInputError(f"--because has {len(why)} characters; {_LONGEST} are allowed")
    if versions is None or len(set(versions)) != 1:
        raise InvalidInputError(
            "--because is a decision for one version: name it with --version, once"
        )
    if replace_lost:
        raise InvalidInputError(
            "--because replaces any champion without asking the gate, and --replace-lost asks it: "
            "give one of them"
        )
    return versions[0], why


def write_decision(client: MlflowClient, version: ModelVersion, why: str) -> None:
    """Write a decision to a version's tags; the aliases are the caller's.

    The gate's earlier verdict goes to an artifact of the run (`versions.set_aside`).

    Args:
        client: MLflow's client.
        version: The version decided for.
        why: The reason, as `checked_decision` returns it.
    """
    who, when = user_name(), datetime.now(UTC)
    reason = f"{who} decided on {when:%Y-%m-%d at %H:%M UTC}, without the gate: {why}"
    if version.tags.get("gate") not in (None, DECIDED):
        reason += f" (before: {version.tags.get('gate_reason', 'no reason recorded')})"
    set_aside(client, version, OF_THE_GATE)
    tags = {
        "decided_by": who,
        "decided_at": when.isoformat(timespec="seconds"),
        "decided_because": why,
        "gate_reason": reason,
        "gate": DECIDED,
    }
    for key, value in tags.items():
        client.set_model_version_tag(version.name, version.version, key, value)
