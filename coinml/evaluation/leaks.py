"""Videos that stand on both sides of a split: the same file, or the same picture again.

A head that has learnt a video of the test side by heart looks better than it is. Which is the
same file, its hash says. A copy that was encoded anew has other bytes and nearly the same
embedding: cosine of the two, with what all videos have in common (the mean) subtracted.

How near is too near, was measured with the tiny encoder: 295 drawn videos, 80 real clips, and 50
of them encoded anew. The nearest other video has a cosine of 0.94 (drawn) and 0.84 (real) in the
median and 0.992 and 0.993 at most; copies of the same size have 0.999 in the median, and 45 of the
50 lie above 0.995. Of 150 copies that were shrunk or cut as well 54 do; lower thresholds would take
other videos for copies. So 0.995 is asked for; and, lest an encoder to which all videos look alike
report everything, a distance of at most a tenth of what is usual between a video and its nearest.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.data.records import SPLITS, Split
from coinml.embedding_sets.table import feature_columns

logger = logging.getLogger(__name__)

SAME_FILE, ALIKE = "file", "embedding"
"""What stands in a leak's column `by`; the surer one sorts last."""

MIN_COSINE = 0.995
_PART_OF_USUAL = 0.1
_BLOCK = 1024
"""Rows whose products are held at once: 1,024 by COIN's 30,000 training segments are 120 MB."""

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
    """Pairs of videos, one on each side of a split, that are the same file or look the same.

    Args:
        table: As `dataset.build_table` makes it.
        sha256s: Hash of each video's file, as far as they are known.
        min_cosine: Least cosine of two centred embeddings that counts as the same.

    Returns:
        One row a pair, `video_id, split, label, twin_id, twin_split, twin_label, by, cosine`,
        sorted. The first is the one to drop: in train where the twin is in val or test, in val
        where it is in test. `by` is "file" or "embedding".
    """
    rows = _unit(table)
    places = {split: np.flatnonzero((table["split"] == split).to_numpy()) for split in SPLITS}
    pairs = {}
    near, nearest = _near(rows, places, min_cosine)
    if len(nearest):
        usual = 1 - float(np.median(nearest))
        limit = max(min_cosine, 1 - _PART_OF_USUAL * usual)
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
    # Segments of two videos meet many times; the two are one pair.
    leaks = leaks.sort_values(["by", "cosine"], ascending=[False, False], kind="stable")
    leaks = leaks.drop_duplicates(["video_id", "twin_id"])
    if len(leaks):
        logger.warning(
            "%d pairs of videos on two sides of the split are the same file or look the same: %s",
            len(leaks),
            ", ".join(f"{a} and {b}" for a, b in leaks[["video_id", "twin_id"]].to_numpy()[:5]),
        )
    return leaks.sort_values(["video_id", "twin_id"], ignore_index=True)


def drop_leaks(table: pd.DataFrame, leaks: pd.DataFrame) -> pd.DataFrame:
    """A table without the first of each pair: test stays whole, and val gives way to it alone.

    Args:
        table: As `dataset.build_table` makes it.
        leaks: As `find_leaks` found them in it.
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
    """Pairs across the split that are near each other, and each later video's best cosine."""
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
