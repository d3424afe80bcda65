"""Which faults the host simulates, and the plan of the demonstration."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coinml.data.splits import unit_hash
from coinml.errors import InvalidInputError

ANSWERS = (
    "ok",
    "403",
    "404",
    "410",
    "429",
    "500",
    "503",
    "reset",
    "short",
    "stall",
    "slow",
    "html",
    "empty",
)

LENGTH_ANSWERS = ("416", "unsized", "endless", "drip", "ignore_range", "wrong_range")
"""Answers that are wrong about lengths and ranges.

`unsized` is the whole file without its length, `endless` goes on until the client leaves, `drip`
sends a byte every `drip_s`; `ignore_range` is the whole file in place of the part that was asked
for, and `wrong_range` another part.
"""

_TIMES = ("stall_s", "slow_s", "drip_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRule:
    """A period in which the source refuses every request.

    Attributes:
        after_requests: The period begins after this many requests.
        answer: The HTTP status of the refusals, usually "429".
        times: Number of refused requests; ignored with `for_s`; None: any number.
        for_s: Length of the period in seconds from its first refusal.
        retry_after_s: The Retry-After header in seconds; None: no header.
    """

    after_requests: int
    answer: str = "429"
    times: int | None = 1
    for_s: float | None = None
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """The faults that the host simulates.

    Attributes:
        videos: Answers by video id, one per request; the last one repeats.
        source: Periods in which all requests are refused.
        stall_s: Duration of a stalled answer, in seconds.
        slow_s: Duration of a slow answer, in seconds.
        drip_s: Time from byte to byte of a dripping answer, in seconds.
    """

    videos: Mapping[str, tuple[str, ...]]
    source: tuple[SourceRule, ...] = ()
    stall_s: float = 60.0
    slow_s: float = 2.0
    drip_s: float = 0.1

    @classmethod
    def from_dict(cls, plan: Mapping[str, Any], *, origin: str = "plan") -> FaultPlan:
        """Validate a plan as read from JSON.

        Args:
            plan: In the form of the host's `--plan` file.
            origin: Name of the plan in error messages.

        Raises:
            InvalidInputError: An unknown key or answer, or a value of the wrong type.
        """
        unknown = set(plan) - {"videos", "source", *_TIMES}
        if unknown:
            raise InvalidInputError(f"{origin}: unknown keys {sorted(unknown)}")
        videos: dict[str, tuple[str, ...]] = {}
        for video_id, answers in plan.get("videos", {}).items():
            videos[video_id] = tuple(str(answer) for answer in answers)
            if not videos[video_id] or not set(videos[video_id]) <= {*ANSWERS, *LENGTH_ANSWERS}:
                raise InvalidInputError(
                    f"{origin}: video {video_id!r} has answers {list(answers)!r}; "
                    f"one or more of {', '.join(ANSWERS + LENGTH_ANSWERS)} are allowed"
                )
        try:
            source = tuple(SourceRule(**rule) for rule in plan.get("source", ()))
        except TypeError as err:
            raise InvalidInputError(f"{origin}: source: {err}") from err
        for rule in source:
            if not re.fullmatch(r"[45]\d\d", str(rule.answer)):
                raise InvalidInputError(
                    f"{origin}: source: answer {rule.answer!r} is not a status from 400 to 599"
                )
        times = {name: float(plan[name]) for name in _TIMES if name in plan}
        return cls(videos=videos, source=source, **times)

    @classmethod
    def read(cls, path: Path) -> FaultPlan:
        """Read a plan from a JSON file.

        Raises:
            InvalidInputError: The file is missing or not a plan.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as err:
            raise InvalidInputError(f"{path}: not a readable JSON file: {err}") from err
        if not isinstance(content, dict):
            raise InvalidInputError(f"{path}: expected a JSON object")
        return cls.from_dict(content, origin=str(path))


def demo_fault_plan(annotations: Path) -> dict[str, Any]:
    """The faults of the demonstration, as a JSON-like mapping that `FaultPlan.from_dict` reads.

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
