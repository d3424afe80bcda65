"""What heads tell apart (task, domain or step), and which part of a video that is about."""

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
"""A class with fewer training videos is reported: what is learnt of it hangs on single ones."""

Span = tuple[float | None, float | None]
"""Start and end in seconds from the first frame; both None for the whole video."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One thing to learn from or to be measured on.

    Attributes:
        sample_id: Unique in its dataset: the video's id, and for a step `<video id>#<n>`, the
            n-th segment of the video in order of time, from 1.
        video_id: The video that it is (a part of).
        label: Its class.
        split: Its video's, so that all segments of a video are on one side.
        span: The part of the video that is looked at.
    """

    sample_id: str
    video_id: str
    label: str
    split: Split
    span: Span


def examples(
    videos: Sequence[Video], *, target: Target = "task", extent: Extent = "video"
) -> list[Example]:
    """What a dataset has to learn from, whether it is collected or not.

    Args:
        videos: The dataset's.
        target: Whose classes.
        extent: Which part of a video, for `task` and `domain`.

    Raises:
        InvalidInputError: The annotations or the taxonomy do not say what the target asks for.
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
            # A video without the extent counts among those that are not here.
            span=next(iter(spans(video, extent)), (None, None)),
        )
        for video in videos
    ]


def spans(video: Video, extent: Extent) -> list[Span]:
    """The parts of a video that a set of this extent holds; each once, in order of time.

    The annotated extent goes from the first to the last annotated second: from the
    annotations' own start and end where they are there, and always over all segments.
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
    """The videos whose annotations do not say where the extent is.

    Raises:
        InvalidInputError: None of them does.
    """
    without = [video for video in videos if not spans(video, extent)]
    if videos and len(without) == len(videos):
        raise InvalidInputError(
            f"extent {extent}: none of these {len(videos)} videos has annotated segments; COIN's "
            "layout has them, class folders do not; take the extent `video`"
        )
    return without


def extent_of(target: str | None, extent: str | None) -> Extent:
    """The extent that is meant where a target or an extent is named, or both.

    Raises:
        InvalidInputError: An unknown one, or two that contradict each other.
    """
    if target is not None and target not in TARGETS:
        raise InvalidInputError(f"target {target!r}: one of {', '.join(TARGETS)} is allowed")
    if extent is not None and extent not in EXTENTS:
        raise InvalidInputError(f"extent {extent!r}: one of {', '.join(EXTENTS)} is allowed")
    if extent is None:
        return "segments" if target == "step" else "video"
    if target is not None and (target == "step") != (extent == "segments"):
        raise InvalidInputError(
            f"target {target} and extent {extent} contradict each other: steps are learnt on "
            "`segments`, tasks and domains on `video` or `annotated`"
        )
    return extent


def step_names(videos: Iterable[Video]) -> dict[str, str]:
    """The class of each step by its id: the label with the id behind it.

    The id is there for every step, since 25 of COIN's labels stand under two ids, and a name
    that depended on what else is selected would be another class in every run.
    """
    labels: dict[str, str] = {}
    for step in _steps(videos):
        labels[step.step_id] = min(labels.get(step.step_id, step.label), step.label)
    return {step_id: f"{label} ({step_id})" for step_id, label in labels.items()}


def domains_of_classes(videos: Sequence[Video], *, target: Target = "task") -> dict[str, str]:
    """Domain by class, where the taxonomy knows one and all videos of the class agree.

    Empty where the classes are the domains themselves.
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
    """Number of examples that each split has officially, lost ones included."""
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
