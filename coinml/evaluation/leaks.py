"""Leaks: videos that are on two sides of a split, as the same file or as a re-encoded copy.

A head that was trained on a test video has a test accuracy that is too high. Identical files have
the same hash. A re-encoded copy has other bytes, but nearly the same embedding: it is found by the
cosine of the two embeddings after the mean of all embeddings is subtracted.

The threshold was measured with the tiny encoder on 295 drawn videos, 80 real clips, and 50
re-encoded copies of these:

- the nearest other video has a median cosine of 0.94 (drawn) and 0.84 (real), at most 0.992 and
  0.993;
- re-encoded copies of the same size have a median cosine of 0.999, and 45 of 50 are above 0.995;
- of 150 copies that were also shrunk or cut, 54 are above 0.995. Lower thresholds would match
  other videos.

So the cosine must be 0.995 or more. For encoders with similar embeddings for all videos, the
distance (1 - cosine) must also be at most a tenth of the median distance between a video and its
nearest.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.data.names import listed, same_file
from coinml.data.records import SPLITS, Split
from coinml.embedding_sets.table import SAMPLE_ID, feature_columns

logger = logging.getLogger(__name__)

SAME_FILE, ALIKE = "file", "embedding"
"""Values of a leak's column `by`; the more certain one sorts last."""

MIN_COSINE = 0.995
_MAX_SHARE_OF_MEDIAN_DISTANCE = 0.1
_BLOCK = 1024
"""Rows per block of products: 1,024 by COIN's 30,000 training segments are 120 MB."""

_COLUMNS = [
    "video_id",
    "split",
    "label",
    "twin_id",
    "twin_split",
    "twin_label",
    "by",
    "cosine",
]


def find_leaks(
    table: pd.DataFrame,
    sha256s: Mapping[str, str] | None = None,
    *,
    min_cosine: float = MIN_COSINE,
) -> pd.DataFrame:
    """Pairs of videos in different splits that are the same file or look the same.

    Args:
        table: As `build_table` returns it.
        sha256s: Hash of each video's file, where known.
        min_cosine: Lowest cosine of two centred embeddings that counts as the same.

    Returns:
        One row per pair, `video_id, split, label, twin_id, twin_split, twin_label, by, cosine`,
        sorted. The first is the one to drop: in train where the twin is in val or test, in val
        where it is in test. `by` is "file" or "embedding".
    """
    rows = _unit(table)
    places = {split: np.flatnonzero((table["split"] == split).to_numpy()) for split in SPLITS}
    pairs = {}
    near, nearest = _near(rows, places, min_cosine)
    if len(nearest):
        median_distance = 1 - float(np.median(nearest))
        limit = max(min_cosine, 1 - _MAX_SHARE_OF_MEDIAN_DISTANCE * median_distance)
        pairs = {pair: ALIKE for pair, cosine in near.items() if cosine >= limit}
    pairs |= dict.fromkeys(_same_file(table, places, sha256s or {}), SAME_FILE)
    columns = [table[name].tolist() for name in ("video_id", "split", "label")]
    found = [
        (
            *(column[first] for column in columns),
            *(column[second] for column in columns),
            by,
            float(rows[first] @ rows[second]),
        )
        for (first, second), by in pairs.items()
    ]
    leaks = pd.DataFrame(found, columns=_COLUMNS)
    # Two videos are one pair, even if many of their segments match.
    leaks = leaks.sort_values(["by", "cosine"], ascending=[False, False], kind="stable")
    leaks = leaks.drop_duplicates(["video_id", "twin_id"])
    if len(leaks):
        logger.warning(
            "%d pairs of videos in different splits are the same file or look the same: %s",
            len(leaks),
            ", ".join(f"{a} and {b}" for a, b in leaks[["video_id", "twin_id"]].to_numpy()[:5]),
        )
    return leaks.sort_values(["video_id", "twin_id"], ignore_index=True)


def find_contradictions(table: pd.DataFrame, sha256s: Mapping[str, str]) -> pd.DataFrame:
    """Videos that are the same file and have different labels, in one split or in several.

    Segments are left out: those of one video have different labels by right.

    Args:
        table: As `build_table` returns it.
        sha256s: Hash of each video's file, where known.

    Returns:
        One row per video, `sha256, video_id, split, label`, sorted.
    """
    columns = ["sha256", "video_id", "split", "label"]
    hashes = pd.Series(map(sha256s.get, table["video_id"]), index=table.index, dtype=object)
    rows = table.assign(sha256=hashes)[columns]
    if SAMPLE_ID in table.columns:
        rows = rows.iloc[:0]
    several = rows.groupby("sha256")["label"].transform("nunique") > 1
    found = rows[several].sort_values(columns[:2], ignore_index=True)
    if len(found):
        logger.warning(
            "%d videos are the same files as others and have other labels: %s",
            len(found),
            listed(contradiction_texts(found)),
        )
    return found


def contradiction_texts(contradictions: pd.DataFrame) -> tuple[str, ...]:
    """Each file's videos with their labels, as texts.

    Args:
        contradictions: As `find_contradictions` returns them.
    """
    return tuple(
        same_file(dict(zip(rows["video_id"], rows["label"], strict=True)))
        for _, rows in contradictions.groupby("sha256")
    )


def drop_leaks(table: pd.DataFrame, leaks: pd.DataFrame) -> pd.DataFrame:
    """A table without the first video of each pair: test keeps all videos, val loses to test only.

    Args:
        table: As `build_table` returns it.
        leaks: As `find_leaks` returns them.
    """
    return table[~table["video_id"].isin(set(leaks["video_id"]))].reset_index(drop=True)


def _unit(table: pd.DataFrame) -> npt.NDArray[np.float32]:
    """Centred embeddings of length one, float32 (N, D)."""
    vectors = table[feature_columns(table)].to_numpy(dtype=np.float32)
    vectors = vectors - vectors.mean(axis=0)
    scaled: npt.NDArray[np.float32] = vectors / np.maximum(
        np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12
    )
    return scaled


def _near(
    rows: npt.NDArray[np.float32],
    places: Mapping[Split, npt.NDArray[np.intp]],
    min_cosine: float,
) -> tuple[dict[tuple[int, int], float], npt.NDArray[np.float32]]:
    """The similar pairs of rows in different splits, and the best cosine of each later row."""
    near: dict[tuple[int, int], float] = {}
    best = np.full(len(rows), -np.inf, dtype=np.float32)
    for earlier, later in combinations(SPLITS, 2):
        first, second = places[earlier], places[later]
        if not len(first):
            continue
        for start in range(0, len(second), _BLOCK):
            block = second[start : start + _BLOCK]
            cosines = rows[block] @ rows[first].T
            best[block] = np.maximum(best[block], cosines.max(axis=1))
            for row, column in zip(*np.nonzero(cosines >= min_cosine), strict=True):
                near[int(first[column]), int(block[row])] = float(cosines[row, column])
    return near, best[np.isfinite(best)]


def _same_file(
    table: pd.DataFrame,
    places: Mapping[Split, npt.NDArray[np.intp]],
    sha256s: Mapping[str, str],
) -> list[tuple[int, int]]:
    hashes = [sha256s.get(video_id) for video_id in table["video_id"]]
    pairs = []
    for earlier, later in combinations(SPLITS, 2):
        by_hash: dict[str | None, list[int]] = {}
        for place in places[earlier].tolist():
            by_hash.setdefault(hashes[place], []).append(place)
        by_hash.pop(None, None)
        pairs += [
            (twin, place)
            for place in places[later].tolist()
            for twin in by_hash.get(hashes[place], [])
        ]
    return pairs
