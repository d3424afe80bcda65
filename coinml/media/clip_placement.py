"""Choosing the frames of a video's clips."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinml.media.records import ClipSpec
    from coinml.media.timeline import Timeline


def place_clips(
    timeline: Timeline,
    spec: ClipSpec,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
) -> NDArray[np.int64]:
    """Choose the frames of every clip; see `ClipSpec` for the rules.

    Args:
        timeline: The video's frames.
        spec: How clips are placed.
        start_s: Start of the extent in seconds from the first frame; None: the first frame.
        end_s: End of the extent; None: the end of the video.

    Returns:
        int64 (clips, frames): frame numbers on the timeline.

    Raises:
        InvalidInputError: No frame lies in the extent, or it is shorter than a clip and the
            spec's policy is `error`.
    """
    times = timeline.steady_s
    first, last = _extent(timeline, start_s, end_s)
    step_s = spec.stride * timeline.period_s
    span_s = (spec.frames - 1) * step_s
    room_s = float(times[last] - times[first]) - span_s
    parts = (np.arange(spec.clips) + spec.place) / spec.clips
    if room_s < -timeline.period_s / 2 and spec.short == "error":
        raise InvalidInputError(
            f"a clip spans {span_s:.2f} s and there are {times[last] - times[first]:.2f} s of video"
        )
    places = times[first] + max(room_s, 0.0) * parts
    starts = _nearest(times, places, first, last)
    # In a video shorter than a clip, the short-video policy alone decides.
    if spec.snap == "keyframe" and room_s > 0:
        latest_s = float(times[last]) - span_s + timeline.period_s / 4
        fitting = np.arange(first, np.searchsorted(times, latest_s, side="right"))
        starts = _key_starts(timeline, places, fitting[fitting <= last])
    wanted = times[starts][:, None] + step_s * np.arange(spec.frames)
    if spec.short == "wrap":
        length_s = float(times[last] - times[first]) + timeline.period_s
        # Half a period of slack, so that the time of the last frame does not wrap to the first.
        slack_s = timeline.period_s / 2
        wanted = times[first] - slack_s + (wanted - times[first] + slack_s) % length_s
    exact = _nearest(times, wanted, first, last)
    if spec.snap == "keyframe":
        return _among_references(timeline, wanted, exact, (first, last), step_s)
    return exact


def _extent(timeline: Timeline, start_s: float | None, end_s: float | None) -> tuple[int, int]:
    """Numbers of the first and the last frame of an extent."""
    origin = float(timeline.times_s[0])
    # A frame belongs to the extent that contains most of the time it is shown.
    slack_s = timeline.period_s / 2
    first = 0
    last = len(timeline) - 1
    if start_s is not None:
        first = int(np.searchsorted(timeline.times_s, origin + start_s - slack_s))
    if end_s is not None:
        last = int(np.searchsorted(timeline.times_s, origin + end_s - slack_s)) - 1
    if first > last or first >= len(timeline):
        shown_s = float(timeline.times_s[-1]) - origin + timeline.period_s
        raise InvalidInputError(
            f"no frame lies between {start_s} and {end_s} s; the video is {shown_s:.2f} s long"
        )
    return first, last


def _nearest(
    times: NDArray[np.float64], wanted: NDArray[np.float64], first: int, last: int
) -> NDArray[np.int64]:
    """Number of the frame nearest to each wanted time, within an extent."""
    after = np.clip(np.searchsorted(times, wanted), first, last)
    before = np.clip(after - 1, first, last)
    nearer_before = wanted - times[before] <= times[after] - wanted
    return np.where(nearer_before, before, after).astype(np.int64)


def _key_starts(
    timeline: Timeline, places: NDArray[np.float64], fitting: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The frame at which each clip begins: a key frame, else a reference frame, else any."""
    times = timeline.steady_s
    keys = set(timeline.keys)
    is_key = np.array([timeline.pts[number] in keys for number in fitting], dtype=bool)
    skippable = timeline.skippable
    is_skippable = np.array([timeline.pts[number] in skippable for number in fitting], dtype=bool)
    starts = _nearest(times, places, int(fitting[0]), int(fitting[-1]))
    left = np.arange(len(places))
    for kind in (is_key, ~is_key & ~is_skippable, is_skippable):
        candidates = fitting[kind]
        if len(candidates) < len(left):
            chosen = _assign(times[candidates], places[left])
            starts[left[chosen]] = candidates
            left = np.delete(left, chosen)
        else:
            starts[left] = candidates[_assign(places[left], times[candidates])]
            left = left[:0]
    return starts


def _assign(few: NDArray[np.float64], many: NDArray[np.float64]) -> NDArray[np.int64]:
    """Assign each of `few` ascending times its own one of `many`, with the least sum of distances.

    Returns:
        int64 (few,): indices into `many`, strictly ascending.
    """
    count, slack = len(few), len(many) - len(few)
    # The i-th of the few takes one of many[i : i + slack + 1]; total[j] is the least sum of
    # distances up to it that ends at or before its j-th choice.
    total = np.zeros(slack + 1)
    choice = np.zeros((count, slack + 1), dtype=np.int64)
    for i in range(count):
        cost = total + np.abs(many[i : i + slack + 1] - few[i])
        total = np.minimum.accumulate(cost)
        # Among equally good choices the first.
        new = np.r_[True, total[1:] < total[:-1]]
        choice[i] = np.maximum.accumulate(np.where(new, np.arange(slack + 1), 0))
    chosen = np.empty(count, dtype=np.int64)
    upto = slack
    for i in reversed(range(count)):
        upto = int(choice[i, upto])
        chosen[i] = i + upto
    return chosen


def _among_references(
    timeline: Timeline,
    wanted: NDArray[np.float64],
    exact: NDArray[np.int64],
    extent: tuple[int, int],
    step_s: float,
) -> NDArray[np.int64]:
    """The reference frame nearest to each wanted time, where one is within half a stride."""
    pts, skippable = timeline.pts, timeline.skippable
    first, last = extent
    references = np.array([n for n in range(first, last + 1) if pts[n] not in skippable], dtype=int)
    if not len(references):
        return exact
    times = timeline.steady_s
    nearest = references[_nearest(times[references], wanted, 0, len(references) - 1)]
    offset_s = times[nearest] - wanted
    # Half-open, so that no reference frame is within half a stride of two wanted times.
    within = (offset_s >= -step_s / 2 * (1 + 1e-9)) & (offset_s < step_s / 2 * (1 - 1e-9))
    # The first frame of a clip is already chosen.
    within[:, 0] = False
    return np.where(within, nearest, exact)
