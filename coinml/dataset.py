"""From embeddings and labels to the arrays that the heads learn from.

The table is pandas, since that is what the store yields and MLflow records; the heads
get plain numpy arrays with the ids beside them.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.errors import InvalidInputError
from coinml.records import SPLITS, Split, Video

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

KEY_COLUMNS = ("video_id", "label", "split")


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """One split's examples, row by row.

    Attributes:
        ids: Video ids, in the order of the rows.
        x: Embeddings, float32 of shape (N, D).
        y: Index of each row's class in `classes`, int64 of shape (N,).
        classes: The class names; the same for every split of a table.
        clips: The embeddings of each row's clips, float16 of shape (N, K, D), for heads that
            look at them; NaN where a video has fewer than K.
    """

    ids: tuple[str, ...]
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    clips: npt.NDArray[np.float16] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: npt.ArrayLike) -> Samples:
        """These rows (indices or a mask) as samples of their own."""
        index = np.arange(len(self.ids))[np.asarray(rows)]
        return replace(
            self,
            ids=tuple(self.ids[i] for i in index),
            x=self.x[index],
            y=self.y[index],
            clips=None if self.clips is None else self.clips[index],
        )


def build_table(videos: Sequence[Video], embeddings: pd.DataFrame) -> pd.DataFrame:
    """Put labels and splits to embeddings; what is not embedded is not in the table.

    Args:
        videos: The dataset's videos, in the order the table shall have.
        embeddings: One row a video: `video_id` and the columns `e0000`, `e0001`, ….

    Returns:
        `video_id, label, split, e0000, …` (float32), in the order of `videos`.

    Raises:
        InvalidInputError: No video of the dataset is embedded, or one is there twice.
    """
    features = feature_columns(embeddings)
    labels = pd.DataFrame(
        [(video.video_id, video.label, video.split) for video in videos],
        columns=list(KEY_COLUMNS),
    )
    twice = embeddings["video_id"][embeddings["video_id"].duplicated()]
    if not twice.empty:
        raise InvalidInputError(f"two embeddings of one video: {twice.iloc[0]!r}")
    table = labels.merge(embeddings[["video_id", *features]], on="video_id", how="inner")
    if table.empty:
        raise InvalidInputError(
            f"none of the dataset's {len(labels)} videos is embedded: collect and embed first"
        )
    return table.astype(dict.fromkeys(features, np.float32))


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
    rows: pa.Table, sha256s: Mapping[str, str] | None = None
) -> dict[str, npt.NDArray[np.float16]]:
    """The embeddings of each video's clips, float16 of shape (clips, D), in their order.

    Args:
        rows: `video_id, file_sha256, clip, embedding` and more, as `EmbeddingSet.clips` has them.
        sha256s: Hash of each video's present file; what was embedded from another file, or of
            a video that is not named, is left out. None takes all of them.
    """
    from coinml.store.parts import vectors_of

    ids, hashes = (rows.column(name).to_numpy() for name in ("video_id", "file_sha256"))
    order = np.lexsort((rows.column("clip").to_numpy(), ids))
    if sha256s is not None:
        wanted = np.fromiter(
            (sha256s.get(i) == h for i, h in zip(ids, hashes, strict=True)), bool, len(ids)
        )
        order = order[wanted[order]]
    if not len(order):
        return {}
    vectors = vectors_of(rows, rows.schema.field("embedding").type.list_size)[order]
    names = ids[order]
    starts = np.flatnonzero(np.append(True, names[1:] != names[:-1]))
    parts = np.split(vectors.astype(np.float16), starts[1:])
    return {str(names[start]): part for start, part in zip(starts, parts, strict=True)}


def split_samples(
    table: pd.DataFrame,
    classes: Sequence[str] | None = None,
    *,
    clips: Mapping[str, npt.NDArray[np.float16]] | None = None,
) -> dict[Split, Samples]:
    """Cut a table into train, val and test.

    A class without training videos stays among the classes (it can never be predicted,
    and its test videos count as wrong); it is reported in the log, not dropped.

    Args:
        table: As `build_table` makes it.
        classes: The classes to tell apart, in order; by default those in the table, sorted.
        clips: The clips of each video of the table, for heads that look at them.

    Raises:
        InvalidInputError: A split is empty, training has fewer than two classes, a label of
            the table is not among `classes`, or a video of it not among `clips`.
    """
    names = tuple(classes) if classes is not None else tuple(sorted(set(table["label"])))
    index = {name: i for i, name in enumerate(names)}
    unknown = sorted(set(table["label"]) - set(names))
    if unknown:
        raise InvalidInputError(f"labels that are not among the {len(names)} classes: {unknown}")
    features = feature_columns(table)
    parts: dict[Split, Samples] = {}
    for split in SPLITS:
        rows = table[table["split"] == split]
        if rows.empty:
            counts = table["split"].value_counts().to_dict()
            raise InvalidInputError(f"no embedded video in the {split} split; there are {counts}")
        parts[split] = Samples(
            ids=tuple(rows["video_id"]),
            x=np.ascontiguousarray(rows[features].to_numpy(dtype=np.float32)),
            y=rows["label"].map(index).to_numpy(dtype=np.int64),
            classes=names,
            clips=None if clips is None else _stacked(tuple(rows["video_id"]), clips),
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
    """Clips of shape (N, K, D) with K the most that any video has, and NaN where one has fewer."""
    missing = [video_id for video_id in ids if video_id not in clips]
    if missing:
        raise InvalidInputError(f"no clips of {len(missing)} videos of the table: {missing[:3]}")
    most = max(len(part) for part in clips.values())
    stack = np.full((len(ids), most, clips[ids[0]].shape[1]), np.nan, dtype=np.float16)
    for row, video_id in enumerate(ids):
        stack[row, : len(clips[video_id])] = clips[video_id]
    return stack


def ids_digest(ids: Iterable[str]) -> str:
    """12 hex digits that name a set of ids, whatever their order."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:12]


def table_digest(table: pd.DataFrame) -> str:
    """12 hex digits of everything in a table that training reads, row order included."""
    digest = hashlib.sha256()
    for row in table[list(KEY_COLUMNS)].itertuples(index=False, name=None):
        digest.update("\x1f".join(map(str, row)).encode() + b"\x1e")
    features = table[feature_columns(table)].to_numpy(dtype=np.float32)
    digest.update(repr(features.shape).encode())
    digest.update(np.ascontiguousarray(features).tobytes())
    return digest.hexdigest()[:12]


def permute_labels(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The same table with its labels shuffled within each split.

    What a head still scores on it is what the procedure gives away, not what it learnt.
    """
    shuffled = table.copy()
    generator = np.random.default_rng(seed)
    for split in SPLITS:
        rows = shuffled.index[shuffled["split"] == split]
        shuffled.loc[rows, "label"] = generator.permutation(shuffled.loc[rows, "label"].to_numpy())
    return shuffled
