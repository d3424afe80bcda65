"""Shared by the parts of `gpu.py`: the table and the measuring functions."""

from __future__ import annotations

import json
import math
import os
import resource
import statistics
import subprocess
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _embedding_inputs as inputs
import numpy as np
import torch

from coinml.encoder.clip_encoder import ClipEncoder

ROOT = Path(__file__).resolve().parents[1]
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
COIN_VIDEOS, CLIPS = inputs.COIN_VIDEOS, inputs.COIN_CLIPS
CLIP_FLOP = 360.7e9
"""Floating-point operations of VideoMAE-base for a clip of 1,568 tokens."""
COIN_MINUTES = {"exact": 10.0, "keyframe": 5.0}
TESTS = "tests/unit/encoder/test_encoder_cuda.py"


@dataclass
class Table:
    """The measurements, printed and written to a file, and the requirements that were missed."""

    file: Path
    rows: list[tuple[str, Any, str]] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def row(self, what: str, value: Any, note: str = "") -> None:
        """Add a measurement without a requirement."""
        value = float(f"{value:.4g}") if isinstance(value, float) else value
        self.rows.append((what, value, note))
        print(f"    {what}: {value}  {note}", flush=True)

    def bar(
        self, what: str, value: float, *, least: float | None = None, most: float | None = None
    ) -> None:
        """Add a measurement with a smallest or largest allowed value, and by how much it is met."""
        met = not math.isnan(value)
        if least is not None:
            met, asked, apart = met and value >= least, f"at least {least:g}", value - least
        else:
            assert most is not None
            met, asked, apart = met and value <= most, f"at most {most:g}", value - most
        if not met:
            self.missed.append(what)
        verdict = f"{'met' if met else 'MISSED'} by {abs(apart):.2g}"
        self.row(what, float(value), f"({asked}: {verdict})")

    def fail(self, what: str, reason: str) -> None:
        """Add a part that failed."""
        self.missed.append(what)
        self.row(what, "FAILED", reason)

    def write(self) -> None:
        """Write the rows to the file."""
        self.file.write_text(json.dumps(self.rows, indent=1, default=str), encoding="utf-8")

    def show(self) -> None:
        """Print all rows and the requirements that were missed."""
        print("\n" + "=" * 110)
        for what, value, note in self.rows:
            print(f"{what:<56} {value!s:>14}  {note}")
        print(f"\nmissed: {', '.join(self.missed) or 'nothing'}", flush=True)


@dataclass
class Check:
    """The inputs that the parts share.

    Attributes:
        rates: Clips per second by name, for ratios between parts.
    """

    table: Table
    folder: Path
    base: Path
    files: list[Path]
    encoder: ClipEncoder
    sampled: Any
    dry: bool
    ends: float
    rates: dict[str, float] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds until the time limit of the whole check."""
        return self.ends - time.perf_counter()


def waits_in(work: Callable[[], object]) -> list[str]:
    """Code locations at which work waits for the GPU, except for waits for an event."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    hits = [warning for warning in seen if "synchroniz" in str(warning.message)]
    return [f"{Path(hit.filename).name}:{hit.lineno}" for hit in hits]


class ThreadTimes:
    """CPU seconds of this process by kind of thread, sampled during a block."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[int, str], float] = {}
        self._first: dict[tuple[int, str], float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> ThreadTimes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def summary(self, videos: int) -> str:
        """CPU milliseconds per video of each kind of thread."""
        kinds: Counter[str] = Counter()
        for key, seconds in self._seconds.items():
            kinds[key[1]] += seconds - self._first[key]
        parts = [f"{name} {s / videos * 1e3:.1f}" for name, s in kinds.most_common() if s > 0]
        return ", ".join(parts)

    def _watch(self) -> None:
        tick = os.sysconf("SC_CLK_TCK")
        known = {thread.native_id for thread in threading.enumerate()}
        while True:
            named = {thread.native_id: thread.name for thread in threading.enumerate()}
            for task in Path("/proc/self/task").iterdir():
                number = int(task.name)
                try:
                    fields = (task / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                kind = named.get(number, "native").split("-")[0].split("_")[0]
                seconds = (int(fields[11]) + int(fields[12])) / tick
                old = number in known or number not in named
                self._first.setdefault((number, kind), seconds if old else 0.0)
                self._seconds[number, kind] = seconds
            if self._over.wait(0.25):
                return


class ChildrenCPU:
    """CPU seconds of the child processes that end during a block."""

    def __enter__(self) -> ChildrenCPU:
        self._before = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = self._now() - self._before

    @staticmethod
    def _now() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime


class one_thread:
    """A block in which torch uses one CPU thread."""

    def __enter__(self) -> None:
        self._before = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self._before)


def synchronize() -> None:
    if CUDA:
        torch.cuda.synchronize()


def timed(work: Callable[[], object], repeats: int = 3) -> float:
    """Median seconds of the work, after one warm-up round."""
    seconds = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        work()
        synchronize()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[1:])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def process_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def output(command: str) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    return done.stdout.strip()
