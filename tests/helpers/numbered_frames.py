"""Frames that tell their own number, so that a test can see which ones were decoded."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

SIZE = (48, 64, 3)


def numbered(count: int) -> list[np.ndarray]:
    """Frames that tell their number by their brightness, each unlike its neighbours."""
    frames = []
    for number in range(count):
        frame = np.full(SIZE, 40, dtype=np.uint8)
        for bit in range(8):
            if number >> bit & 1:
                frame[:, bit * 8 : bit * 8 + 8] = 220
        frames.append(frame)
    return frames


def number_of(frame: np.ndarray) -> int:
    return sum(1 << bit for bit in range(8) if frame[:, bit * 8 + 2 : bit * 8 + 6].mean() > 128)


def all_frames(path: Path) -> dict[float, np.ndarray]:
    """Every frame by its time, decoded from start to end."""
    with av.open(str(path)) as container:
        return {
            round(float(frame.time), 6): frame.to_ndarray(format="rgb24")
            for frame in container.decode(video=0)
        }
