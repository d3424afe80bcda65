"""The faults that the demonstration's host is told to show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coinml.data.splits import unit_hash


def fault_plan(annotations: Path) -> dict[str, Any]:
    """The faults of the demonstration, in the form that `host` takes.

    Four videos are gone, one is never a video, fourteen are flaky but alive, and the source
    refuses everyone once, for two seconds. The choice depends on the ids alone.
    """
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
