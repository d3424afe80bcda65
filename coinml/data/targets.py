"""Targets (what a head classifies) and extents (which part of a video it looks at)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from coinml.data.records import SPLITS, Extent, Split, Step, Target, Video
from coinml.errors import InvalidInputError

TARGETS: tuple[Target, ...] = get_args(Target)
EXTENTS: tuple[Extent, ...] = get_args(Extent)

FEW_VIDEOS = 5
"""Classes with fewer training videos are reported: their results depend on single videos."""

Span = tuple[float | None, float | None]
"""Start and end in seconds from the first frame; both None for the whole video."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One labelled sample: a video, or a segment of one.

    Attributes:
        sample_id: Unique in its dataset: the video's id, or for a step `<video id>#<n>`, where n
            counts the video's segments in order of time, from 1.
        video_id: The video.
        label: Its class.
        split: The video's split, so all segments of a video are in one split.
        span: The part of the video that is used.
    """

    sample_id: str
    video_id: str
    label: str
    split: Split
    span: Span


def examples(
    videos: Sequence[Video], *, target: Target = "task", extent: Extent = "video"
) -> list[Example]:
    """The labelled samples of a dataset, whether collected or not.

    Args:
        videos: The dataset's videos.
        target: What is classified.
        extent: The part of a video that is used, for `task` and `domain`.

    Raises:
        InvalidInputError: The annotations or the taxonomy lack the target's labels.
    """
    if target == "step":
        names = step_names(videos)
        found = [
            Example(
                sample_id=f"{video.video_id}#{number}",
                video_id=video.video_id,
                label=names[step.step_id],
                split=video.split,
                span=(step.start_s, step.end_s),
            )
            for video in videos
            for number, step in enumerate(video.steps, start=1)
        ]
        if not found:
            raise InvalidInputError(
                "target step: none of these videos has annotated segments; COIN's layout has "
                "them, class folders do not"
            )
        return found
    if target == "domain":
        _require_domains(videos)
    return [
        Example(
            sample_id=video.video_id,
            video_id=video.video_id,
            label=str(video.domain) if target == "domain" else video.label,
            split=video.split,
            # A video without the extent has no embedding and counts as missing.
            span=next(iter(spans(video, extent)), (None, None)),
        )
        for video in videos
    ]


def spans(video: Video, extent: Extent) -> list[Span]:
    """The parts of a video that an embedding set of this extent contains, in order of time.

    The annotated extent runs from the first to the last annotated second: it covers all
    segments, and the annotations' own start and end where given.
    """
    if extent == "video":
        return [(None, None)]
    if extent == "segments":
        return list(dict.fromkeys((step.start_s, step.end_s) for step in video.steps))
    starts = [step.start_s for step in video.steps]
    ends = [step.end_s for step in video.steps]
    if video.start_s is not None and video.end_s is not None:
        starts, ends = [video.start_s, *starts], [video.end_s, *ends]
    return [(min(starts), max(ends))] if starts else []


def require_spans(videos: Sequence[Video], extent: Extent) -> list[Video]:
    """The videos without annotations of the extent.

    Raises:
        InvalidInputError: All of them are without.
    """
    without = [video for video in videos if not spans(video, extent)]
    if videos and len(without) == len(videos):
        raise InvalidInputError(
            f"extent {extent}: none of these {len(videos)} videos has annotated segments; COIN's "
            "layout has them, class folders do not; use the extent `video`"
        )
    return without


def extent_of(target: str | None, extent: str | None) -> Extent:
    """The extent that follows from a target, an extent, or both.

    Raises:
        InvalidInputError: One is unknown, or they contradict each other.
    """
    if target is not None and target not in TARGETS:
        raise InvalidInputError(f"target {target!r}: one of {', '.join(TARGETS)} is allowed")
    if extent is not None and extent not in EXTENTS:
        raise InvalidInputError(f"extent {extent!r}: one of {', '.join(EXTENTS)} is allowed")
    if extent is None:
        return "segments" if target == "step" else "video"
    if target is not None and (target == "step") != (extent == "segments"):
        raise InvalidInputError(
            f"target {target} and extent {extent} contradict each other: steps need the extent "
            "`segments`, tasks and domains `video` or `annotated`"
        )
    return extent


def target_of(target: Target | None, extent: str | None) -> Target:
    """The target, or where none is named the one that is trained on the extent."""
    return target or ("step" if extent == "segments" else "task")


def step_names(videos: Iterable[Video]) -> dict[str, str]:
    """Class name of each step by its id: "label (id)".

    Every name contains the id, since 25 of COIN's labels have two ids and a class name must not
    depend on which other steps are selected.
    """
    labels: dict[str, str] = {}
    for step in _steps(videos):
        labels[step.step_id] = min(labels.get(step.step_id, step.label), step.label)
    return {step_id: f"{label} ({step_id})" for step_id, label in labels.items()}


def domains_of_classes(videos: Sequence[Video], *, target: Target = "task") -> dict[str, str]:
    """Domain by class, where the taxonomy has exactly one for all videos of the class.

    Empty for the target `domain`.
    """
    if target == "domain":
        return {}
    names = step_names(videos)
    found: dict[str, set[str]] = {}
    for video in videos:
        steps = {names[step.step_id] for step in video.steps}
        for name in steps if target == "step" else {video.label}:
            found.setdefault(name, set()).update({video.domain} if video.domain else ())
    return {name: next(iter(domains)) for name, domains in found.items() if len(domains) == 1}


def official_sizes(found: Iterable[Example]) -> Mapping[Split, int]:
    """Number of examples of each split as published, lost videos included."""
    counts = Counter(example.split for example in found)
    return {split: counts[split] for split in SPLITS}


def _steps(videos: Iterable[Video]) -> Iterable[Step]:
    return (step for video in videos for step in video.steps)


def _require_domains(videos: Sequence[Video]) -> None:
    lacking = sorted({video.label for video in videos if video.domain is None})
    if lacking:
        named = ", ".join(lacking[:5]) + (" …" if len(lacking) > 5 else "")
        raise InvalidInputError(
            f"target domain: no domain is known for {len(lacking)} classes ({named}); put COIN's "
            "taxonomy.xlsx, or its sheet taxonomy_domain_target_mapping.csv, beside the annotations"
        )
