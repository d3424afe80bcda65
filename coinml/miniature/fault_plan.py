"""The planned faults of the demonstration's host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coinml.data.splits import unit_hash


def fault_plan(annotations: Path) -> dict[str, Any]:
    """The faults of the demonstration, in the form of `host.FaultPlan`.

    Four videos are gone, one is an HTML page, fourteen fail at first, and the source refuses all
    requests once, for two seconds. The choice depends only on the ids.
    """
    database = json.loads(annotations.read_text())["database"]
    # Shuffled, since in the order of collection all faults would come first.
    ids = sorted(database, key=lambda video_id: unit_hash(video_id, seed=1))
    gone: list[list[str]] = [["404"]] * 3 + [["410"]] + [["html"]]
    flaky = [["503", "ok"], ["ok", "reset", "ok"], ["503", "503", "ok"], ["ok", "short", "ok"]]
    answers = gone + (flaky * 4)[:14]
    return {
        "videos": dict(zip(ids, answers, strict=False)),
        "source": [{"after_requests": 120, "answer": "429", "retry_after_s": 2, "times": 4}],
    }
