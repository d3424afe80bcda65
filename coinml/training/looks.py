"""How often the test videos have been evaluated on: by heads, studies and cross-validations.

The more often, the more an accuracy on them is the best of many. The test set of a growing
collection changes with every new video, so runs are counted whose test videos overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING

from coinml.embedding_sets.table import ids_digest
from coinml.errors import InvalidInputError
from coinml.tracking.mlflow_store import MlflowStore
from coinml.tracking.test_looks import TEST_IDS_DIGEST, is_look, looks_of_deleted

if TYPE_CHECKING:
    from mlflow.entities import Run

    from coinml.training.train_report import TrainReport

CROSS_VALIDATION = "cv"
"""Value of the tag `kind` of a cross-validation, which is evaluated on all of its videos."""


def studies_experiment(model: str) -> str:
    """Name of the experiment with the studies of a registered model's dataset and target."""
    return f"{model}-studies"


def count_looks(store: MlflowStore, model: str, digest: str, test_ids: Set[str]) -> int:
    """Number of runs that were evaluated on some of these test videos.

    Failed and deleted ones count.

    Args:
        store: Where the runs are.
        model: Name of the registered model, and of the experiment of its heads.
        digest: `ids_digest` of the ids.
        test_ids: Ids of the test videos (or segments).
    """
    overlaps, unread = {digest: True}, dict[str, int]()
    experiments = (model, studies_experiment(model))
    # Of which videos these were is not known any more: they count.
    looks = looks_of_deleted(store, experiments)
    for run in _evaluated(store, experiments):
        of_run = run.data.tags[TEST_IDS_DIGEST]
        if of_run not in overlaps:
            found = _test_ids(store, run)
            if found is None:
                unread[of_run] = unread.get(of_run, 0) + 1
                continue
            overlaps[of_run] = not test_ids.isdisjoint(found)
        looks += overlaps[of_run]
    # Runs that failed before they had logged their ids are of this dataset all the same.
    return looks + sum(count for one, count in unread.items() if overlaps.get(one, True))


def recounted(store: MlflowStore, reports: Sequence[TrainReport]) -> tuple[TrainReport, ...]:
    """Reports with the number of evaluations by now: others followed theirs.

    Args:
        store: Where the runs are.
        reports: Of trained heads.

    Raises:
        InvalidInputError: The predictions of a run are gone.
    """
    counts: dict[tuple[str, str], int] = {}
    found = []
    for report in reports:
        predictions = store.read_table(report.run_id, "predictions")
        tested = predictions["video_id"][predictions["split"] == "test"].tolist()
        of = (report.model, ids_digest(tested))
        if of not in counts:
            counts[of] = count_looks(store, *of, set(tested))
        found.append(replace(report, metrics={**report.metrics, "test_looks": float(counts[of])}))
    return tuple(found)


def _evaluated(store: MlflowStore, experiments: tuple[str, ...]) -> Iterator[Run]:
    """The runs that were evaluated on test videos, the latest first."""
    client = store.client()
    found = [client.get_experiment_by_name(name) for name in experiments]
    ids = [str(one.experiment_id) for one in found if one is not None]
    page: str | None = None
    while ids and (page is None or page):
        runs = client.search_runs(
            ids,
            f"tags.`{TEST_IDS_DIGEST}` LIKE '%'",
            order_by=["attributes.start_time DESC"],
            page_token=page,
        )
        yield from filter(is_look, runs)
        page = runs.token or ""


def _test_ids(store: MlflowStore, run: Run) -> set[str] | None:
    """The ids that a run was evaluated on; None if it has logged none."""
    try:
        predictions = store.read_table(str(run.info.run_id), "predictions")
    except InvalidInputError:
        return None
    if run.data.tags.get("kind") == CROSS_VALIDATION:
        return set(predictions["video_id"])
    return set(predictions["video_id"][predictions["split"] == "test"])
