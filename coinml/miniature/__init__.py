"""A small COIN that is drawn here: its videos, the host that serves them, and a tiny encoder.

What a video shows is in `compositions`, `tasks` says which combinations are the six tasks, and
`drawing` turns scenes into frames. `host` serves a folder of videos and misbehaves to order;
`pretrain` made the weights in `ENCODER`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

ENCODER = Path(__file__).parent / "videomae-tiny"
"""Folder of the tiny VideoMAE that comes with the package; its README says what it is."""


def make(
    folder: Path,
    *,
    seed: int = 0,
    training: int = 28,
    testing: int = 22,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw the miniature; returns at once if it is there already.

    Args:
        folder: Gets `COIN.json`, the taxonomy's two sheets and `videos/<id>.mp4`.
        seed: Another seed gives other videos of the same six tasks.
        training: Training videos a task.
        testing: Testing videos a task.
        jobs: Processes that draw; as many as there are processors if None. The result does
            not depend on it.
        progress: Called with how many videos are drawn and how many there will be.

    Returns:
        The path of the annotations, in COIN's official layout.
    """
    from coinml.miniature.dataset import draw_dataset

    return draw_dataset(
        folder, seed=seed, training=training, testing=testing, jobs=jobs, progress=progress
    )


def fault_plan(annotations: Path) -> dict[str, Any]:
    """The faults of the demonstration, in the form that `host` takes.

    Four videos are gone, one is never a video, fourteen are flaky but alive, and the source
    refuses everyone once, for two seconds. The choice depends on the ids alone.
    """
    from coinml.splits import unit_hash

    database = json.loads(annotations.read_text())["database"]
    # Not the order in which videos are collected, or all of the faults would come first.
    ids = sorted(database, key=lambda video_id: unit_hash(video_id, seed=1))
    gone: list[list[str]] = [["404"]] * 3 + [["410"]] + [["html"]]
    flaky = [["503", "ok"], ["ok", "reset", "ok"], ["503", "503", "ok"], ["ok", "short", "ok"]]
    answers = gone + (flaky * 4)[:14]
    return {
        "videos": dict(zip(ids, answers, strict=False)),
        "source": [{"after_requests": 120, "answer": "429", "retry_after_s": 2, "times": 4}],
    }
