"""Joining embeddings with labels, and splitting the table into arrays for the heads.

The table is a pandas data frame, as embedding sets return it and MLflow logs it. Heads get numpy
arrays and the ids of their rows.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.data.records import SPLITS, Extent, Split, Target, Video
from coinml.data.targets import Example, examples
from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

KEY_COLUMNS = ("video_id", "label", "split")
SAMPLE_ID = "sample_id"
GROUP = "group"
"""Column of what a video shares with others (`Video.group`), where a dataset has groups."""

_SPAN = ("start_s", "end_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """The examples of one split, one per row.

    Attributes:
        ids: Id of each row: a video id or a segment id.
        x: Embeddings, float32 of shape (N, D).
        y: Index of each row's class in `classes`, int64 of shape (N,).
        classes: The class names; the same for every split of a table.
        clips: The clip embeddings of each row, float16 of shape (N, K, D), for heads that use
            them; NaN where a video has fewer than K clips.
        groups: The video of each row if a video has several rows, which then are not independent
            samples; empty if each row is a video.
        shared: What each row's video shares with others (`Video.group`); empty if each video is
            independent of the others.
    """

    ids: tuple[str, ...]
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    clips: npt.NDArray[np.float16] | None = None
    groups: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()

    @property
    def clusters(self) -> tuple[str, ...] | None:
        """The group of each row whose rows are not independent; None if all rows are."""
        return self.shared or self.groups or None

    @property
    def things(self) -> Literal["videos", "segments"]:
        """What the rows are."""
        return "segments" if self.groups else "videos"

    @property
    def videos(self) -> int:
        """Number of different videos among the rows."""
        return len(set(self.groups)) if self.groups else len(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: npt.ArrayLike) -> Samples:
        """The samples of some rows (indices or a mask)."""
        index = np.arange(len(self.ids))[np.asarray(rows)]
        return replace(
            self,
            ids=tuple(self.ids[i] for i in index),
            x=self.x[index],
            y=self.y[index],
            clips=None if self.clips is None else self.clips[index],
            groups=tuple(self.groups[i] for i in index) if self.groups else (),
            shared=tuple(self.shared[i] for i in index) if self.shared else (),
        )


def build_table(
    videos: Sequence[Video],
    embeddings: pd.DataFrame,
    *,
    target: Target = "task",
    extent: Extent = "video",
) -> pd.DataFrame:
    """Join embeddings with labels and splits; videos that are not embedded are left out.

    Args:
        videos: The dataset's videos, in the order that the table is to have.
        embeddings: One row per video or extent: `video_id`, the columns `e0000`, `e0001`, … and,
            unless whole videos were embedded, `start_s, end_s`.
        target: What the labels are: "task", "domain" or "step".
        extent: Which part of a video was embedded, for "task" and "domain".

    Returns:
        `video_id, label, split, e0000, …` (float32), in the order of `videos`; for "step" one row
        per segment, with its `sample_id` before the features; with the `group` of each video where
        the dataset has groups.

    Raises:
        InvalidInputError: No video of the dataset is embedded, an extent has two embeddings, or
            the annotations lack what the target needs.
    """
    features = feature_columns(embeddings)
    wanted = examples(videos, target=target, extent=extent)
    labels = pd.DataFrame(
        [(one.video_id, one.label, one.split, one.sample_id, *one.span) for one in wanted],
        columns=[*KEY_COLUMNS, SAMPLE_ID, *_SPAN],
    ).astype(dict.fromkeys(_SPAN, np.float64))
    if not set(_SPAN) <= set(embeddings.columns):
        embeddings = embeddings.assign(start_s=np.nan, end_s=np.nan)
    keys = ["video_id", *_SPAN]
    twice = embeddings["video_id"][embeddings.duplicated(keys)]
    if not twice.empty:
        raise InvalidInputError(f"two embeddings of one video or extent: {twice.iloc[0]!r}")
    # Spans can be joined as floats: the set stores the very numbers of the annotations.
    present = embeddings[[*keys, *features]].astype(dict.fromkeys(_SPAN, np.float64))
    table = labels.merge(present, on=keys, how="inner")
    if table.empty:
        what = "segments" if target == "step" else "videos"
        raise InvalidInputError(
            f"none of the dataset's {len(labels)} {what} is embedded: collect and embed first"
        )
    shown = [SAMPLE_ID] if target == "step" else []
    shared = {video.video_id: video.group for video in videos if video.group is not None}
    if shared:
        table[GROUP] = [shared.get(one, one) for one in table["video_id"]]
        shown.append(GROUP)
    return table[[*KEY_COLUMNS, *shown, *features]].astype(dict.fromkeys(features, np.float32))


def sample_ids(table: pd.DataFrame) -> list[str]:
    """The id of each row of a table: the segment's id, or the video's."""
    return list(table[SAMPLE_ID if SAMPLE_ID in table.columns else "video_id"])


def feature_columns(table: pd.DataFrame) -> list[str]:
    """The names of the embedding columns (`e0000`, `e0001`, …), in order.

    Raises:
        InvalidInputError: The table has none.
    """
    columns = [name for name in table.columns if name[:1] == "e" and name[1:].isdigit()]
    if not columns:
        raise InvalidInputError(
            f"no embedding columns (e0000, e0001, …) among {list(table.columns)[:8]}"
        )
    return columns


def clips_by_video(
    rows: pa.Table,
    sha256s: Mapping[str, str] | None = None,
    *,
    wanted: Sequence[Example] | None = None,
) -> dict[str, npt.NDArray[np.float16]]:
    """The clip embeddings of each video, float16 of shape (clips, D), in the order of the clips.

    Args:
        rows: `video_id, file_sha256, clip, embedding` and more, as `EmbeddingSet.clips` returns
            them.
        sha256s: Hash of each video's current file. Embeddings of other files, and of videos not
            in the mapping, are left out. None takes all of them.
        wanted: The examples to keep, for a set of extents; the keys are then the example ids.
    """
    from coinml.embedding_sets.parts import vectors_of

    ids, hashes = (rows.column(name).to_numpy() for name in ("video_id", "file_sha256"))
    # NaN (the whole video) is unequal to itself; -1 is not.
    spans = np.zeros((2, len(ids)))
    if wanted is not None:
        spans = np.stack([np.nan_to_num(rows.column(n).to_numpy(), nan=-1.0) for n in _SPAN])
    order = np.lexsort((rows.column("clip").to_numpy(), *spans[::-1], ids))
    if sha256s is not None:
        present = np.fromiter(
            (sha256s.get(i) == h for i, h in zip(ids, hashes, strict=True)), bool, len(ids)
        )
        order = order[present[order]]
    if not len(order):
        return {}
    vectors = vectors_of(rows, rows.schema.field("embedding").type.list_size)[order]
    names, spans = ids[order], spans[:, order]
    differs = (names[1:] != names[:-1]) | (spans[:, 1:] != spans[:, :-1]).any(axis=0)
    starts = np.flatnonzero(np.append(True, differs))
    parts = np.split(vectors.astype(np.float16), starts[1:])
    if wanted is None:
        return {str(names[start]): part for start, part in zip(starts, parts, strict=True)}
    found = {
        (str(names[start]), *map(float, spans[:, start])): part
        for start, part in zip(starts, parts, strict=True)
    }
    keys = {
        one.sample_id: (one.video_id, *(-1.0 if at is None else at for at in one.span))
        for one in wanted
    }
    return {sample_id: found[key] for sample_id, key in keys.items() if key in found}


def split_samples(
    table: pd.DataFrame,
    classes: Sequence[str] | None = None,
    *,
    clips: Mapping[str, npt.NDArray[np.float16]] | None = None,
    splits: Sequence[Split] = SPLITS,
) -> dict[Split, Samples]:
    """Split a table into train, val and test.

    A class without training videos stays among the classes: it is never predicted, and its test
    videos count as wrong. It is reported in the log.

    Args:
        table: As `build_table` returns it.
        classes: The classes, in order; by default those in the table, sorted.
        clips: The clip embeddings of each row by id, for heads that use them.
        splits: The splits to return; "train" must be among them.

    Raises:
        InvalidInputError: A split is empty, training has fewer than two classes, a label is not
            among `classes`, or a row has no clips in `clips`.
    """
    names = tuple(classes) if classes is not None else tuple(sorted(set(table["label"])))
    index = {name: i for i, name in enumerate(names)}
    unknown = sorted(set(table["label"]) - set(names))
    if unknown:
        raise InvalidInputError(f"labels that are not among the {len(names)} classes: {unknown}")
    features = feature_columns(table)
    parts: dict[Split, Samples] = {}
    for split in splits:
        rows = table[table["split"] == split]
        if rows.empty:
            counts = table["split"].value_counts().to_dict()
            raise InvalidInputError(f"no embedded video in the {split} split; there are {counts}")
        parts[split] = Samples(
            ids=tuple(sample_ids(rows)),
            x=np.ascontiguousarray(rows[features].to_numpy(dtype=np.float32)),
            y=rows["label"].map(index).to_numpy(dtype=np.int64),
            classes=names,
            clips=None if clips is None else _stacked(sample_ids(rows), clips),
            groups=tuple(rows["video_id"]) if SAMPLE_ID in rows.columns else (),
            shared=tuple(rows[GROUP]) if GROUP in rows.columns else (),
        )
    trained = set(parts["train"].y.tolist())
    if len(trained) < 2:
        raise InvalidInputError(
            f"training needs videos of two classes or more, and has {len(trained)} of {len(names)}"
        )
    untrained = [name for i, name in enumerate(names) if i not in trained]
    if untrained:
        logger.warning(
            "no training video for %d of %d classes: %s",
            len(untrained),
            len(names),
            ", ".join(untrained),
        )
    return parts


def _stacked(
    ids: Sequence[str], clips: Mapping[str, npt.NDArray[np.float16]]
) -> npt.NDArray[np.float16]:
    """Clips of shape (N, K, D), K the largest number of any video, padded with NaN."""
    missing = [video_id for video_id in ids if video_id not in clips]
    if missing:
        raise InvalidInputError(f"no clips of {len(missing)} videos of the table: {missing[:3]}")
    most = max(len(part) for part in clips.values())
    stack = np.full((len(ids), most, clips[ids[0]].shape[1]), np.nan, dtype=np.float16)
    for row, video_id in enumerate(ids):
        stack[row, : len(clips[video_id])] = clips[video_id]
    return stack


def ids_digest(ids: Iterable[str]) -> str:
    """12 hex digits that identify a set of ids, independent of their order."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:12]


def table_digest(table: pd.DataFrame) -> str:
    """12 hex digits that identify what training reads of a table, row order included."""
    digest = hashlib.sha256()
    keys = [name for name in (*KEY_COLUMNS, SAMPLE_ID, GROUP) if name in table.columns]
    for row in table[keys].itertuples(index=False, name=None):
        digest.update("\x1f".join(map(str, row)).encode() + b"\x1e")
    features = table[feature_columns(table)].to_numpy(dtype=np.float32)
    digest.update(repr(features.shape).encode())
    digest.update(np.ascontiguousarray(features).tobytes())
    return digest.hexdigest()[:12]


def permute_labels(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The table with its labels shuffled within each split.

    A head that scores above chance on it reveals a leak in the procedure.
    """
    shuffled = table.copy()
    generator = np.random.default_rng(seed)
    for split in SPLITS:
        rows = shuffled.index[shuffled["split"] == split]
        shuffled.loc[rows, "label"] = generator.permutation(shuffled.loc[rows, "label"].to_numpy())
    return shuffled
