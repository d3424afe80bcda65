"""Time stamps made usable: ascending in decoding order, and without gaps that hold no film."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEEPEST_REORDERING = 16
"""Frames by which the order of showing may differ from that of decoding (H.264 and HEVC)."""

_SAME = 1e-6
_LONGEST_GAP = 1000
_LONGEST_GAP_OF_A_SHORT_FILM = 100


def ascending(times_s: Sequence[float | None], *, period_s: float) -> NDArray[np.float64]:
    """Times for frames in the order in which a decoder gives them.

    1. A frame without a time follows the one before it by the median distance.
    2. A few frames whose stamps jump away, after which the stamps go on as before, are laid
       evenly between their neighbours.
    3. Stamps that go back by more than any reordering begin a second recording, which follows
       the first.
    4. Stamps in another order (AVI states that of decoding) are sorted; the frames are not.

    Args:
        times_s: Seconds as the file states them, None for a frame without a time.
        period_s: Seconds between frames where no two stamps tell it.

    Returns:
        float64 (frames,), strictly ascending.
    """
    known = np.array([time_s for time_s in times_s if time_s is not None], dtype=np.float64)
    steps = np.diff(known)
    median_s = float(np.median(steps[steps > 0])) if (steps > 0).any() else period_s
    times = _filled(times_s, median_s)
    _straighten_jumps(times, median_s)
    far_back = np.flatnonzero(np.diff(times) < -DEEPEST_REORDERING * median_s) + 1
    last = -np.inf
    for recording in np.split(times, far_back):
        recording.sort()
        if recording[0] <= last:
            recording += last + median_s - recording[0]
        for place, time_s in enumerate(recording):
            last = float(time_s) if time_s - last > _SAME * median_s else last + median_s
            recording[place] = last
    return times


def without_gaps(times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ascending times in which a gap without film is as short as the median distance.

    Such a gap is longer than 1000 median distances (a camera that records on motion, a wild
    stamp), or longer than all other distances together and than 100 median ones (a wild stamp in
    a short film). Other gaps, in which a still is shown, stay.
    """
    steps = np.diff(times_s)
    if len(steps) < 2:
        return times_s
    median_s = float(np.median(steps))
    gap = (steps > _LONGEST_GAP * median_s) | (
        (steps > _LONGEST_GAP_OF_A_SHORT_FILM * median_s) & (steps > steps.sum() / 2)
    )
    if not gap.any():
        return times_s
    steps[gap] = median_s
    return np.concatenate([times_s[:1], times_s[0] + np.cumsum(steps)])


def film_length_s(times_s: Sequence[float | None], *, period_s: float) -> float:
    """From the first frame to the end of the last one, with mended times and without gaps.

    Args:
        times_s: As `ascending` takes them.
        period_s: Seconds between frames by the header; the last frame is shown for so long.
    """
    times = without_gaps(ascending(times_s, period_s=period_s))
    last_s = period_s
    if len(times) > 1:
        median_s = float(np.median(np.diff(times)))
        # Wild time stamps spoil the header's rate, too.
        last_s = period_s if median_s / 10 < period_s < median_s * 10 else median_s
    return float(times[-1] - times[0]) + last_s


def _filled(times_s: Sequence[float | None], period_s: float) -> NDArray[np.float64]:
    """The times, with a value for frames that have none."""
    times: list[float] = []
    for time_s in times_s:
        if time_s is None:
            time_s = times[-1] + period_s if times else 0.0
        times.append(time_s)
    return np.array(times, dtype=np.float64)


def _straighten_jumps(times: NDArray[np.float64], median_s: float) -> None:
    """Lay frames evenly, in place, where stamps jump away and come back to where they were."""
    slack_s = DEEPEST_REORDERING * median_s
    jumps = np.flatnonzero(np.abs(np.diff(times)) > slack_s)
    at = 0
    for before, back in pairwise(jumps.tolist()):
        after = back + 1
        if before < at or back - before > DEEPEST_REORDERING:
            continue
        expected = times[before] + (after - before) * median_s
        if times[before] < times[after] <= expected + slack_s:
            times[before : after + 1] = np.linspace(times[before], times[after], after - before + 1)
            at = after
