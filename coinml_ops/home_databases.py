"""The three databases of a home, and what to do about one that is damaged."""

from __future__ import annotations

from pathlib import Path

from coinml.runtime.sqlite_files import damage_of, refuse_damaged, way_back

LEDGER, MLFLOW, PREFECT = "ledger", "mlflow", "prefect"


def databases(home: Path) -> dict[str, Path]:
    """The files of a home's databases by name, whether they are there or not."""
    return {
        LEDGER: home / "data" / "ledger.db",
        MLFLOW: home / "mlflow.db",
        PREFECT: home / "data" / "prefect" / "prefect.db",
    }


def check_database(path: Path, name: str) -> None:
    """Raise an error with the way back if a database's file is damaged.

    Raises:
        LocalError: It is.
    """
    refuse_damaged(path, name, _without_copy(name))


def damage_and_remedy(path: Path, name: str) -> tuple[str, str] | None:
    """What is wrong with a database's file, and the way back; None if nothing is."""
    found = damage_of(path)
    return None if found is None else (found, way_back(name, _without_copy(name)))


def _without_copy(name: str) -> str:
    # Both rooms are slow to import, and seldom needed here.
    if name == LEDGER:
        from coinml.ledger.database import WITHOUT_COPY

        return WITHOUT_COPY
    if name == MLFLOW:
        from coinml.tracking.local_store import WITHOUT_COPY as WITHOUT_RUNS

        return WITHOUT_RUNS
    return (
        "remove the file: the history of runs is lost, and `coinml up` applies the deployments "
        "again"
    )
