"""The stages of a flow that runs other flows: one line of its log for each."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from tasks.summaries import champion_of

P = ParamSpec("P")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


def logged(name: str, work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """Run a stage, and log what it did and how long that took."""
    started = time.perf_counter()
    result = work(*args, **kwargs)
    logger.info("%s: %s; %s", name, _told(result), _duration(time.perf_counter() - started))
    return result


def _told(result: object) -> str:
    return champion_of(result) if isinstance(result, Sequence) else str(result)


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.1f} min"
