"""Paired comparison of two heads on the same videos: McNemar's test and the difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.errors import InvalidInputError
from coinml.evaluation.intervals import Estimate, clustered_proportion, proportion, share_of


@dataclass(frozen=True, slots=True, kw_only=True)
class McNemar:
    """McNemar's exact test on paired answers.

    Attributes:
        b: Number of videos that only the first head classifies correctly.
        c: Number of videos that only the second head classifies correctly.
        p_value: Two-sided, from the binomial distribution with probability 1/2. Where a video
            has several rows (segments), which are not independent, it is that of the sign test
            over videos, by which head has more correct rows.
    """

    b: int
    c: int
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two heads on the videos that both were measured on.

    Attributes:
        n: Number of common videos.
        accuracy_a: Accuracy of the first head on them.
        accuracy_b: Accuracy of the second head on them.
        difference: Accuracy of the second minus the first, with a paired 95 % interval.
        mcnemar: The paired test.
        discordant: The videos that exactly one head classifies correctly:
            `video_id, label, predicted_a, predicted_b, right` ("a" or "b").
        per_class: One row per class: `class, support, correct_a, correct_b, difference` (of the
            correct videos, second minus first), the largest gain of the second first.
    """

    n: int
    accuracy_a: Estimate
    accuracy_b: Estimate
    difference: Estimate
    mcnemar: McNemar
    discordant: pd.DataFrame
    per_class: pd.DataFrame


def mcnemar(
    correct_a: npt.NDArray[np.bool_],
    correct_b: npt.NDArray[np.bool_],
    *,
    groups: Sequence[object] | None = None,
) -> McNemar:
    """Test whether two heads differ, by the videos that only one classifies correctly.

    Source: McNemar, Q. (1947). Note on the sampling error of the difference between
    correlated proportions or percentages. Psychometrika 12, 153-157; the exact form.

    Args:
        correct_a: Whether the first head is correct, shape (N,).
        correct_b: Whether the second head is correct on the same rows.
        groups: Each row's video, where videos have several.

    Raises:
        InvalidInputError: The two have different numbers of rows.
    """
    if correct_a.shape != correct_b.shape:
        raise InvalidInputError(
            f"paired answers of {correct_a.shape[0]} and {correct_b.shape[0]} videos"
        )
    b = int((correct_a & ~correct_b).sum())
    c = int((correct_b & ~correct_a).sum())
    if groups is None:
        return McNemar(b=b, c=c, p_value=_binomial_p(b, c))
    _, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    gain = np.rint(np.bincount(member, weights=correct_b.astype(float) - correct_a))
    return McNemar(b=b, c=c, p_value=_binomial_p(int((gain < 0).sum()), int((gain > 0).sum())))


def paired_difference(b: float, c: float, both: float, n: float) -> Estimate:
    """Difference of two proportions of the same videos, with its 95 % interval.

    Combines the score intervals of the two with their correlation, so that the interval has a
    width even for heads with identical answers.

    Source: Newcombe, R. G. (1998). Improved confidence intervals for the difference between
    binomial proportions based on paired data. Statistics in Medicine 17, 2635-2650; method 10.

    Args:
        b: Videos that only the first classifies correctly.
        c: Videos that only the second classifies correctly.
        both: Videos that both classify correctly.
        n: All videos. The four need not be whole numbers: for rows in groups, they are effective
            sizes.

    Returns:
        Second minus first.
    """
    first, second = share_of(both + b, n), share_of(both + c, n)
    neither = n - both - b - c
    product = both * neither - b * c
    # Without the continuity correction, a few concordant videos would give a correlation of 1.
    corrected = max(product - n / 2, 0.0) if product > 0 else float(product)
    scale = math.sqrt((both + b) * (c + neither) * (both + c) * (b + neither))
    phi = corrected / scale if scale > 0 else 0.0

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(one * one - 2 * phi * one * other + other * other, 0.0))

    value = (c - b) / n
    return Estimate(
        value=value,
        low=value - reach(second.value - second.low, first.high - first.value),
        high=value + reach(second.high - second.value, first.value - first.low),
    )


def compare(predictions_a: pd.DataFrame, predictions_b: pd.DataFrame) -> Comparison:
    """Compare two heads on the videos that both were measured on.

    Args:
        predictions_a: `video_id, label, predicted` of the first head on one split; with
            `of_video` for segments, which are not independent of each other.
        predictions_b: The same of the second head.

    Raises:
        InvalidInputError: They have no video in common, or disagree about a video's label.
    """
    both = predictions_a[["video_id", "label", "predicted"]].merge(
        predictions_b[["video_id", "label", "predicted"]],
        on="video_id",
        suffixes=("_a", "_b"),
        validate="one_to_one",
    )
    if both.empty:
        raise InvalidInputError(
            f"no video in common ({len(predictions_a)} and {len(predictions_b)} predictions)"
        )
    unlike = both[both["label_a"] != both["label_b"]]
    if not unlike.empty:
        row = unlike.iloc[0]
        raise InvalidInputError(
            f"video {row['video_id']!r} is {row['label_a']!r} in one run and "
            f"{row['label_b']!r} in the other: they were not measured on the same labels"
        )
    correct_a = (both["predicted_a"] == both["label_a"]).to_numpy()
    correct_b = (both["predicted_b"] == both["label_b"]).to_numpy()
    n = len(both)
    groups = (
        predictions_a.set_index("video_id")["of_video"] if "of_video" in predictions_a else None
    )
    videos = None if groups is None else groups.loc[both["video_id"]].tolist()
    tested = mcnemar(correct_a, correct_b, groups=videos)
    agreed = int((correct_a & correct_b).sum())
    worth = 1.0 if videos is None else 1 / _design_effect(correct_a, correct_b, videos)
    rows = both[correct_a != correct_b].rename(columns={"label_a": "label"})
    discordant = rows[["video_id", "label", "predicted_a", "predicted_b"]].assign(
        right=np.where(correct_a[correct_a != correct_b], "a", "b")
    )
    return Comparison(
        n=n,
        accuracy_a=_accuracy(correct_a, videos),
        accuracy_b=_accuracy(correct_b, videos),
        difference=paired_difference(*(worth * k for k in (tested.b, tested.c, agreed, n))),
        mcnemar=tested,
        discordant=discordant.reset_index(drop=True),
        per_class=_per_class(both["label_a"], correct_a, correct_b),
    )


def _accuracy(correct: npt.NDArray[np.bool_], videos: Sequence[str] | None) -> Estimate:
    if videos is None:
        return proportion(int(correct.sum()), len(correct))
    return clustered_proportion(correct, videos)


def _design_effect(
    correct_a: npt.NDArray[np.bool_], correct_b: npt.NDArray[np.bool_], videos: Sequence[str]
) -> float:
    """The design effect: number of rows that are worth one independent row; at least 1.

    Source: Kish, L. (1965). Survey Sampling. Wiley; the design effect.
    """
    _, member = np.unique(np.asarray(videos, dtype=str), return_inverse=True)
    n_videos = int(member.max()) + 1
    gain = correct_b.astype(float) - correct_a
    apart = gain - gain.mean()
    alone = float(apart @ apart)
    if alone == 0 or n_videos == 1:
        return len(gain) / n_videos
    sums = np.bincount(member, weights=apart)
    return max(1.0, n_videos / (n_videos - 1) * float(sums @ sums) / alone)


def _per_class(
    labels: pd.Series, correct_a: npt.NDArray[np.bool_], correct_b: npt.NDArray[np.bool_]
) -> pd.DataFrame:
    videos = pd.DataFrame(
        {"class": labels.to_numpy(), "correct_a": correct_a, "correct_b": correct_b}
    )
    rows = videos.groupby("class", as_index=False).agg(
        support=("correct_a", "size"),
        correct_a=("correct_a", "sum"),
        correct_b=("correct_b", "sum"),
    )
    rows["difference"] = rows["correct_b"] - rows["correct_a"]
    return rows.sort_values(["difference", "class"], ascending=[False, True], ignore_index=True)


def _binomial_p(b: int, c: int) -> float:
    if b + c == 0:
        return 1.0
    # Imported here, since scipy.stats takes most of a second to import.
    from scipy.stats import binomtest

    return float(binomtest(min(b, c), b + c, 0.5).pvalue)
