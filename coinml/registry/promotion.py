"""Promotion: candidates pass the gate and become champion; a rollback undoes that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from coinml.errors import RegistryError
from coinml.registry.decision import (
    DECIDED,
    OF_A_PERSON,
    checked_decision,
    write_decision,
)
from coinml.registry.error_budget import ErrorBudget
from coinml.registry.gate import COVERAGE_FLOOR, judge, number_of
from coinml.registry.versions import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    list_versions,
    point_alias,
    set_aside,
    version_at,
    version_numbered,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from coinml.tracking.mlflow_store import MlflowStore

PASSED, PROMOTED, REFUSED, ROLLED_BACK = "passed", "promoted", "refused", "rolled back"
"""Values of a version's tag `gate`, with `DECIDED`.

A version that passed or was decided for is promoted once its alias is set.
"""

GATE_TRIES = "gate_tries"
"""Tag of the registered model with its `ErrorBudget`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateVerdict:
    """The gate's decision on a version.

    Attributes:
        model: Name of the registered model.
        version: The candidate.
        promoted: Whether it is the champion now.
        reason: Why, or why not; also in the version's tag `gate_reason`.
        attempt: Which try of the model this was; None if no test was made.
        level: The largest p-value that passed at this try; None if no test was made.
        decided_by: Who decided instead of the gate; None if nobody did.
    """

    model: str
    version: int
    promoted: bool
    reason: str
    attempt: int | None = None
    level: float | None = None
    decided_by: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)


def promote(
    store: MlflowStore,
    name: str,
    versions: Sequence[int] | None = None,
    *,
    coverage_floor: float = COVERAGE_FLOOR,
    replace_lost: bool = False,
    because: str | None = None,
) -> list[GateVerdict]:
    """Send candidates through the gate, the best on val first.

    Args:
        store: Where the registry is.
        name: The registered model.
        versions: The candidates; None takes the versions that the gate has not judged, or else
            the challenger, or else the champion, which stays it.
        coverage_floor: Least share of the official test videos that a candidate must have
            been measured on.
        replace_lost: Replace a champion whose predictions are gone from MLflow, by the rule for
            a first champion.
        because: Why a person makes the one version in `versions` the champion; the gate is not
            asked.

    Raises:
        InvalidInputError: `because` is empty, or not of one version alone.
        NoModelError: No such version.
        RegistryError: The model has no version, or one that coinml did not register.
    """
    if because is not None:
        number, why = checked_decision(versions, because, replace_lost=replace_lost)
        return [_decide(store, version_numbered(store, name, number), why)]
    if versions is None:
        versions = _not_yet_judged(store, name)
    candidates = [version_numbered(store, name, number) for number in versions]
    candidates.sort(key=lambda candidate: -number_of(candidate, "val_accuracy"))
    now = datetime.now(UTC)
    level = _budget_of(store, name).level_for(max(len(candidates), 1), now)
    verdicts = [
        _send(store, candidate, now, level, coverage_floor, replace_lost=replace_lost)
        for candidate in candidates
    ]
    # Registration made the latest version the challenger; it should be the best refused one.
    refused = [verdict.version for verdict in verdicts if not verdict.promoted]
    if refused:
        point_alias(store.client(), name, CHALLENGER, str(refused[0]))
    return verdicts


def _send(
    store: MlflowStore,
    candidate: ModelVersion,
    now: datetime,
    level: float,
    coverage_floor: float,
    *,
    replace_lost: bool,
) -> GateVerdict:
    """Judge one candidate and write the outcome to its tags and the aliases."""
    client, name = store.client(), candidate.name
    champion = version_at(store, name, CHAMPION)
    if candidate.tags.get("gate") == DECIDED or (
        champion is not None and champion.version == candidate.version
    ):
        # An earlier call was interrupted before it had set the alias or the tag, or it is the
        # champion already.
        return _crown(store, candidate, champion)
    if candidate.tags.get("gate") == ROLLED_BACK:
        return GateVerdict(
            model=name,
            version=int(candidate.version),
            promoted=False,
            reason=f"{candidate.tags['gate_reason']}; another rollback brings it back",
        )
    budget = _budget_of(store, name)
    pair = (str(candidate.version), "" if champion is None else str(champion.version))
    offered = budget.offer(*pair, level)
    judgement = judge(
        store,
        candidate,
        champion,
        offered,
        coverage_floor=coverage_floor,
        replace_lost=replace_lost,
    )
    tags = {"gate_reason": judgement.reason}
    if judgement.tested:
        # Written before the verdict: an interrupted call makes the same try again.
        spent = budget.spend(offered, *pair, now)
        client.set_registered_model_tag(name, GATE_TRIES, spent.to_json())
        tags |= {"gate_try": str(offered.number), "gate_level": f"{offered.level:.6g}"}
    # Tags are written before the alias: an interruption in between leaves the old champion, and
    # the next call finds the version that passed and was not promoted.
    tags["gate"] = PASSED if judgement.passed else REFUSED
    set_aside(client, candidate, OF_A_PERSON)
    for key, value in tags.items():
        client.set_model_version_tag(name, candidate.version, key, value)
    judged = version_numbered(store, name, int(candidate.version))
    return _crown(store, judged, champion) if judgement.passed else _verdict(judged)


def _decide(store: MlflowStore, candidate: ModelVersion, why: str) -> GateVerdict:
    """Make a version the champion because a person says so."""
    champion = version_at(store, candidate.name, CHAMPION)
    if champion is None or champion.version != candidate.version:
        write_decision(store.client(), candidate, why)
        candidate = version_numbered(store, candidate.name, int(candidate.version))
    return _crown(store, candidate, champion)


def _crown(
    store: MlflowStore, candidate: ModelVersion, champion: ModelVersion | None
) -> GateVerdict:
    """Point the aliases at a version whose tags say that it may be the champion."""
    client, name = store.client(), candidate.name
    if champion is None or champion.version != candidate.version:
        if champion is not None:
            point_alias(client, name, PREVIOUS, champion.version)
        point_alias(client, name, CHAMPION, candidate.version)
    _end_challenge(store, name, candidate.version)
    if candidate.tags.get("gate") in (PASSED, DECIDED):
        client.set_model_version_tag(name, candidate.version, "gate", PROMOTED)
    return _verdict(candidate, promoted=True)


def _end_challenge(store: MlflowStore, name: str, version: str) -> None:
    """Remove the alias of the challenger from a version that is the champion."""
    challenger = version_at(store, name, CHALLENGER)
    if challenger is not None and challenger.version == version:
        store.client().delete_registered_model_alias(name, CHALLENGER)


def _verdict(version: ModelVersion, *, promoted: bool = False) -> GateVerdict:
    """The verdict that a version's tags have."""
    tags = version.tags
    return GateVerdict(
        model=version.name,
        version=int(version.version),
        promoted=promoted,
        reason=tags.get("gate_reason", "it is the champion already"),
        attempt=int(tags["gate_try"]) if "gate_try" in tags else None,
        level=float(tags["gate_level"]) if "gate_level" in tags else None,
        decided_by=tags.get("decided_by"),
    )


def _budget_of(store: MlflowStore, name: str) -> ErrorBudget:
    """The model's budget; a new one counts the versions that an earlier coinml has judged."""
    client = store.client()
    recorded = client.get_registered_model(name).tags.get(GATE_TRIES)
    if recorded is not None:
        return ErrorBudget.from_json(recorded)
    judged = [row for row in list_versions(store, name) if "gate" in row["tags"]]
    budget = ErrorBudget(tries=len(judged))
    # Written at once: later, versions that were judged without a test would count as well.
    client.set_registered_model_tag(name, GATE_TRIES, budget.to_json())
    return budget


def rollback(store: MlflowStore, name: str) -> GateVerdict:
    """Make the previous champion the champion again; the two swap places.

    The gate refuses a version that was rolled back: a person decided against it.

    Raises:
        RegistryError: There is no previous champion.
    """
    champion, previous = version_at(store, name, CHAMPION), version_at(store, name, PREVIOUS)
    if champion is None or previous is None or previous.version == champion.version:
        raise RegistryError(f"{name} has no {PREVIOUS} champion to go back to")
    client = store.client()
    reason = f"rolled back from version {champion.version}"
    # Tags first, so that after an interruption the gate does not promote the old champion again.
    for version, verdict, why in (
        (champion.version, ROLLED_BACK, f"rolled back to version {previous.version}"),
        (previous.version, PROMOTED, reason),
    ):
        client.set_model_version_tag(name, version, "gate", verdict)
        client.set_model_version_tag(name, version, "gate_reason", why)
    point_alias(client, name, CHAMPION, previous.version)
    point_alias(client, name, PREVIOUS, champion.version)
    _end_challenge(store, name, previous.version)
    return GateVerdict(model=name, version=int(previous.version), promoted=True, reason=reason)


def _not_yet_judged(store: MlflowStore, name: str) -> list[int]:
    """The versions without a final verdict, or else the challenger, or else the champion.

    Versions that were registered by other means than training have no metrics and are left out.
    """
    waiting = [
        int(row["version"])
        for row in list_versions(store, name)
        if row["tags"].get("gate") in (None, PASSED, DECIDED) and "val_accuracy" in row["tags"]
    ]
    if waiting:
        return waiting
    # Without a challenger, the verdict is that the champion is the champion already.
    last = version_at(store, name, CHALLENGER) or version_at(store, name, CHAMPION)
    if last is None:
        raise RegistryError(f"{name} has no version; train one first")
    return [int(last.version)]
