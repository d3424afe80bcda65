"""Promotion: candidates pass the gate and become champion; a rollback undoes that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from coinml.errors import RegistryError
from coinml.registry.gate import COVERAGE_FLOOR, judge, number_of
from coinml.registry.versions import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    list_versions,
    point_alias,
    version_at,
    version_numbered,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from coinml.tracking.mlflow_store import MlflowStore

PASSED, PROMOTED, REFUSED, ROLLED_BACK = "passed", "promoted", "refused", "rolled back"
"""Values of a version's tag `gate`. A passed version is promoted once its alias is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateVerdict:
    """The gate's decision on a version.

    Attributes:
        model: Name of the registered model.
        version: The candidate.
        promoted: Whether it is the champion now.
        reason: Why, or why not; also in the version's tag `gate_reason`.
    """

    model: str
    version: int
    promoted: bool
    reason: str

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
) -> list[GateVerdict]:
    """Send candidates through the gate, the best on val first.

    Args:
        store: Where the registry is.
        name: The registered model.
        versions: The candidates; None takes the versions that the gate has not judged, or else
            the challenger.
        coverage_floor: Least share of the official test videos that a challenger must have
            been measured on.
        replace_lost: Replace a champion whose predictions are gone from MLflow, by the rule for
            a first champion.

    Raises:
        RegistryError: No such model or version, or a version that coinml did not register.
    """
    if versions is None:
        versions = _not_yet_judged(store, name)
    candidates = [version_numbered(store, name, number) for number in versions]
    candidates.sort(key=lambda candidate: -number_of(candidate, "val_accuracy"))
    verdicts = [
        _send(store, candidate, coverage_floor, replace_lost=replace_lost)
        for candidate in candidates
    ]
    # Registration made the latest version the challenger; it should be the best refused one.
    refused = [verdict.version for verdict in verdicts if not verdict.promoted]
    if refused:
        point_alias(store.client(), name, CHALLENGER, str(refused[0]))
    return verdicts


def _send(
    store: MlflowStore, candidate: ModelVersion, coverage_floor: float, *, replace_lost: bool
) -> GateVerdict:
    """Judge one candidate and write the outcome to its tags and the aliases."""
    client, name = store.client(), candidate.name

    def verdict(promoted: bool, reason: str) -> GateVerdict:
        return GateVerdict(
            model=name, version=int(candidate.version), promoted=promoted, reason=reason
        )

    champion = version_at(store, name, CHAMPION)
    if champion is not None and champion.version == candidate.version:
        # An earlier call was interrupted between the alias and the tag.
        if champion.tags.get("gate") == PASSED:
            client.set_model_version_tag(name, champion.version, "gate", PROMOTED)
        return verdict(True, champion.tags.get("gate_reason", "it is the champion already"))
    if candidate.tags.get("gate") == ROLLED_BACK:
        return verdict(False, f"{candidate.tags['gate_reason']}; another rollback brings it back")
    passed, reason = judge(
        store,
        candidate,
        champion,
        coverage_floor=coverage_floor,
        replace_lost=replace_lost,
    )
    # Tags are written before the alias: an interruption in between leaves the old champion, and
    # the next call finds the version that passed and was not promoted.
    client.set_model_version_tag(name, candidate.version, "gate_reason", reason)
    client.set_model_version_tag(name, candidate.version, "gate", PASSED if passed else REFUSED)
    if passed:
        if champion is not None:
            point_alias(client, name, PREVIOUS, champion.version)
        point_alias(client, name, CHAMPION, candidate.version)
        client.set_model_version_tag(name, candidate.version, "gate", PROMOTED)
    return verdict(passed, reason)


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
    return GateVerdict(model=name, version=int(previous.version), promoted=True, reason=reason)


def _not_yet_judged(store: MlflowStore, name: str) -> list[int]:
    """The versions without a final verdict, or the challenger if all have one.

    Versions that were registered by other means than training have no metrics and are left out.
    """
    waiting = [
        int(row["version"])
        for row in list_versions(store, name)
        if row["tags"].get("gate") in (None, PASSED) and "val_accuracy" in row["tags"]
    ]
    if waiting:
        return waiting
    challenger = version_at(store, name, CHALLENGER)
    if challenger is None:
        raise RegistryError(f"{name} has no version; train one first")
    return [int(challenger.version)]
