"""Frames that encode their own number in their pixels, so tests see which were decoded."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

SIZE = (48, 64, 3)


def numbered(count: int) -> list[np.ndarray]:
    """Frames with their number in eight black or white columns, one per bit."""
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
    """Every frame by its time, from a full decode."""
    with av.open(str(path)) as container:
        return {
            round(float(frame.time), 6): frame.to_ndarray(format="rgb24")
            for frame in container.decode(video=0)
        }
