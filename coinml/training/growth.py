"""The number of videos that heads were last trained on, by which growth is measured."""

from __future__ import annotations

from collections.abc import Sequence

from coinml.data.records import SPLITS
from coinml.registry.versions import list_versions
from coinml.tracking.metric_names import own_metrics
from coinml.tracking.mlflow_store import MlflowStore


def trained_videos(
    store: MlflowStore, experiment: str, fingerprint: str, heads: Sequence[str]
) -> int:
    """Number of videos that heads were last trained on with a set; 0 where one never was.

    Versions that the gate has not judged do not count: a run that was interrupted between training
    and the gate must be repeated, which is cheap, since a trained head is found again.

    Args:
        store: Where the runs are.
        experiment: Name of the experiment and of the registered model.
        fingerprint: Fingerprint of the embedding set.
        heads: Names of the heads; the smallest number of all is returned.
    """
    judged = {
        str(row["version"])
        for row in list_versions(store, experiment)
        if row["tags"].get("gate") is not None
    }
    return min(_videos(store, experiment, fingerprint, head, judged) for head in heads)


def _videos(
    store: MlflowStore, experiment: str, fingerprint: str, head: str, judged: set[str]
) -> int:
    for run_id in store.find_runs(experiment, {"set_fingerprint": fingerprint, "head": head}):
        run = store.read_run(run_id).data
        if run.tags.get("version") not in judged:
            continue
        # Dropped leaks count as known videos: they are no reason to train again.
        dropped = int(own_metrics(run.metrics).get("leaks_dropped", 0))
        return dropped + sum(int(run.params.get(f"{split}_videos", 0)) for split in SPLITS)
    return 0
