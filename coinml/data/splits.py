"""Train, val and test splits, by the hash of the id so that they are stable."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from coinml.data.records import SPLITS, Split, Video
from coinml.errors import InvalidInputError

VAL_FRACTION = 0.15
TEST_FRACTION = 0.15

_SHOWN = 10
"""Number of classes that an error names."""


def unit_hash(key: str, *, seed: int = 0) -> float:
    """A number in [0, 1) that depends only on the key and the seed."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def official_split(video_id: str, subset: str, *, seed: int = 0) -> Split:
    """The split of a video with a published subset.

    `val` is taken from `training` by the hash of the id, so a video's split does not depend on
    which others are selected or collected.
    """
    if subset == "testing":
        return "test"
    return "val" if unit_hash(video_id, seed=seed) < VAL_FRACTION else "train"


def folder_splits(
    labels: Mapping[str, str],
    groups: Mapping[str, str],
    *,
    seed: int = 0,
    known: Mapping[str, Split] | None = None,
) -> dict[str, Split]:
    """Split a dataset without published subsets 70/15/15, keeping groups together.

    If no group contains two classes, each class is split on its own (stratified); otherwise all
    groups are split together. Each split gets at least one group. Groups are ordered by their
    hashes. Without `known`, a new file changes the split of the groups next to a border; with it,
    a group never changes its split, and a new one goes where most is lacking.

    Args:
        labels: Class by video id.
        groups: Group by video id (the id itself for a video without a group).
        seed: Seed of the split.
        known: Split by group of an earlier call.

    Raises:
        InvalidInputError: If there are fewer than three groups to split.
    """
    classes_of_group: dict[str, set[str]] = defaultdict(set)
    for video_id, label in labels.items():
        classes_of_group[groups[video_id]].add(label)
    pure = all(len(classes) == 1 for classes in classes_of_group.values())
    strata: dict[str, list[str]] = defaultdict(list)
    for video_id, label in labels.items():
        strata[label if pure else "all classes"].append(video_id)

    splits: dict[str, Split] = {}
    short: list[str] = []
    for stratum, video_ids in strata.items():
        members: dict[str, list[str]] = defaultdict(list)
        for video_id in video_ids:
            members[groups[video_id]].append(video_id)
        if len(members) < len(SPLITS):
            short.append(_too_few(stratum, len(video_ids), len(members)))
            continue
        ordered = sorted(members, key=lambda group: unit_hash(group, seed=seed))
        sizes = {group: len(members[group]) for group in ordered}
        kept = {group: known[group] for group in ordered if group in known} if known else {}
        cut = _extended(sizes, kept) if kept else _cut(list(sizes.items()))
        for group, split in cut:
            splits.update(dict.fromkeys(members[group], split))
    if short:
        shown = ", ".join(short[:_SHOWN]) + (
            f" and {len(short) - _SHOWN} more" * (len(short) > _SHOWN)
        )
        raise InvalidInputError(
            f"a class needs at least {len(SPLITS)} videos or groups, one each for "
            f"{', '.join(SPLITS)}; {shown}: add videos, name the other classes with --classes, or "
            "start the name of a class folder with '_' to leave it out"
        )
    return splits


def _too_few(stratum: str, videos: int, groups: int) -> str:
    counted = f"{videos} video{'s' if videos > 1 else ''}"
    if groups < videos:
        counted += f" in {groups} group{'s' if groups > 1 else ''}"
    return f"{stratum} has {counted}"


def _cut(groups: Sequence[tuple[str, int]]) -> Iterable[tuple[str, Split]]:
    """Assign the first groups to test, the next to val and the rest to train."""
    total = sum(size for _, size in groups)
    quotas: list[tuple[Split, float]] = [
        ("test", TEST_FRACTION * total),
        ("val", VAL_FRACTION * total),
    ]
    taken = 0.0
    for position, (group, size) in enumerate(groups):
        left = len(groups) - position
        # Go to the next split when this one is full, or when the groups that are left are only
        # enough for one group per later split.
        while quotas and taken > 0 and (taken + size / 2 > quotas[0][1] or left <= len(quotas)):
            quotas.pop(0)
            taken = 0.0
        if not quotas:
            yield group, "train"
            continue
        yield group, quotas[0][0]
        taken += size


def _extended(sizes: Mapping[str, int], kept: Mapping[str, Split]) -> Iterable[tuple[str, Split]]:
    """Keep the split of known groups, and give each new one to the split that lacks most."""
    shares: dict[Split, float] = {
        "test": TEST_FRACTION,
        "val": VAL_FRACTION,
        "train": 1 - TEST_FRACTION - VAL_FRACTION,
    }
    total = sum(sizes.values())
    lacking = {split: share * total for split, share in shares.items()}
    for group, split in kept.items():
        lacking[split] -= sizes[group]
        yield group, split
    empty = [split for split in shares if split not in kept.values()]
    for group, size in sizes.items():
        if group not in kept:
            split = empty.pop(0) if empty else max(shares, key=lacking.__getitem__)
            lacking[split] -= size
            yield group, split


def limit_videos(videos: Sequence[Video], limit: int, *, seed: int = 0) -> tuple[Video, ...]:
    """The first `limit` videos in an order that is stratified by class and split.

    One video of every (class, split) comes first, train before test before val; the rest follow
    in proportion. The videos of a smaller limit are among those of a larger one.

    Raises:
        InvalidInputError: If `limit` is not positive.
    """
    if limit < 1:
        raise InvalidInputError(f"limit {limit}: must be at least 1")
    cells: dict[tuple[str, Split], list[Video]] = defaultdict(list)
    for video in sorted(videos, key=lambda video: unit_hash(video.video_id, seed=seed)):
        cells[video.label, video.split].append(video)
    first = {"train": 0, "test": 1, "val": 2}
    ranked = [
        ((rank > 0, first[split] if rank == 0 else 0, rank / len(cell), label, split), video)
        for (label, split), cell in cells.items()
        for rank, video in enumerate(cell)
    ]
    chosen = {video.video_id for _, video in sorted(ranked, key=lambda pair: pair[0])[:limit]}
    return tuple(video for video in videos if video.video_id in chosen)
