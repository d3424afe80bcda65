"""Which runs were evaluated on test videos, those that are deleted included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import Run

    from coinml.tracking.mlflow_store import MlflowStore

TEST_IDS_DIGEST = "test_ids_digest"
"""Tag of every run that is evaluated on test videos, set before it looks at them."""

NOT_A_LOOK = ("study",)
"""Values of the tag `kind` of runs that contain evaluations and are none."""

_DELETED = "coinml.looks_of_deleted_runs"
"""Tag of an experiment: number of its deleted runs that were evaluated on test videos."""


def is_look(run: Run) -> bool:
    """Whether a run was evaluated on test videos."""
    tags = run.data.tags
    return TEST_IDS_DIGEST in tags and tags.get("kind") not in NOT_A_LOOK


def add_looks_of_deleted(store: MlflowStore, experiment_ids: Iterable[str]) -> None:
    """Remember the looks of runs that are about to be deleted.

    Args:
        store: Where they are.
        experiment_ids: The experiment of each of these runs.
    """
    client = store.client()
    for experiment_id, count in Counter(experiment_ids).items():
        before = client.get_experiment(experiment_id).tags.get(_DELETED, "0")
        client.set_experiment_tag(experiment_id, _DELETED, str(int(before) + count))


def looks_of_deleted(store: MlflowStore, experiments: Iterable[str]) -> int:
    """Number of deleted runs of some experiments that were evaluated on test videos."""
    client = store.client()
    found = [client.get_experiment_by_name(name) for name in experiments]
    return sum(int(one.tags.get(_DELETED, "0")) for one in found if one is not None)
