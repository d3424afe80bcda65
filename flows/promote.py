"""Flow `promote`: candidates go through the gate; one that passes becomes the champion."""

from __future__ import annotations

from prefect import flow

from coinml.registry.gate import COVERAGE_FLOOR
from coinml.registry.promotion import GateVerdict
from tasks.alerts import announce_champion
from tasks.outcomes import completed
from tasks.registry import promote_versions
from tasks.reporting import report_verdicts
from tasks.summaries import champion_of
from tasks.watching import rename_run


@flow(name="promote", flow_run_name="promote {model}")
def promote(
    model: str,
    versions: list[int] | None = None,
    coverage_floor: float = COVERAGE_FLOOR,
    replace_lost: bool = False,
    because: str | None = None,
) -> list[GateVerdict]:
    """Send versions through the gate, those best on val first.

    Emits `coinml.champion` if one has become the champion.

    Args:
        model: Name of the registered model, such as `coin-task`.
        versions: The candidates; by default the challenger.
        coverage_floor: Share of the official test videos that a candidate needs.
        replace_lost: Replace a champion whose predictions are gone from MLflow, by the rule for
            a first champion.
        because: Why a person makes the one version in `versions` the champion; the gate is not
            asked, and who decided is recorded.

    Raises:
        InvalidInputError: `because` is empty, or not of one version alone.
    """
    verdicts = promote_versions(model, versions, coverage_floor, replace_lost, because)
    message = champion_of(verdicts)
    report_verdicts(model, verdicts)
    announce_champion(verdicts)
    rename_run(f"promote {model}", f"promote {model}: {message}")
    return completed(verdicts, message=message)
