"""How much an embedding set has grown since heads were trained on it."""

from __future__ import annotations

from coinml.records import SPLITS
from coinml.tracking import Store


def trained_videos(store: Store, experiment: str, fingerprint: str) -> int:
    """Number of videos that the latest finished run on a set had; 0 where there is none.

    Args:
        store: Where the runs are.
        experiment: Its name.
        fingerprint: Of the embedding set.
    """
    for run_id in store.find_runs(experiment, {"set_fingerprint": fingerprint}):
        run = store.read_run(run_id).data
        # What was dropped as a leak was seen, and is no reason to train again.
        dropped = int(run.metrics.get("leaks_dropped", 0))
        return dropped + sum(int(run.params.get(f"{split}_videos", 0)) for split in SPLITS)
    return 0
