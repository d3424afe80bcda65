"""Paired comparison of two heads on the same videos: McNemar's test and the difference.

Rows that come in groups (segments of a video, videos of a person) are not independent. The test
then flips the signs of whole groups, which is McNemar's exact test where each group has one row.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.errors import InvalidInputError
from coinml.evaluation.clusters import clustered_mean, few_gains, members
from coinml.evaluation.intervals import (
    Estimate,
    caveat,
    clustered_proportion,
    proportion,
    share_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class McNemar:
    """McNemar's exact test on paired answers.

    Attributes:
        b: Number of rows (videos or segments) that only the first head classifies correctly.
        c: Number of rows that only the second head classifies correctly.
        p_value: Two-sided, from the binomial distribution with probability 1/2. For rows in
            groups, the share of all ways to give the groups' gains a sign in which their sum is
            as far from 0.
        gains: For rows in groups: number of groups by gain, which is how many more rows of a
            group the second head classifies correctly, without those of gain 0. `p_value`
            follows from it.
    """

    b: int
    c: int
    p_value: float
    gains: Mapping[int, int] = field(default_factory=dict)

    @property
    def p_better(self) -> float:
        """One-sided p: that the second head is better; 1 where it is not."""
        # Both tests are symmetric.
        return self.p_value / 2 if self.c > self.b else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two heads on the videos that both were measured on.

    Attributes:
        n: Number of common rows: videos or segments.
        groups: Number of groups of rows that are independent of each other; None where the rows
            are.
        errors_a: Number of groups (of rows, where these are independent) in which the first head
            has a wrong answer: only there can the second be better.
        things: What the rows are: "videos" or "segments".
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
    groups: int | None
    errors_a: int
    things: Literal["videos", "segments"]
    accuracy_a: Estimate
    accuracy_b: Estimate
    difference: Estimate
    mcnemar: McNemar
    discordant: pd.DataFrame
    per_class: pd.DataFrame

    def counted(self, what: str) -> str:
        """Number of rows, as in "344 test segments of 131 videos".

        Args:
            what: Which rows, such as "test".
        """
        rows = f"{self.n} {what} {self.things}"
        if self.groups is None:
            return rows
        between, unit = ("of", "video") if self._by_video else ("in", "group")
        return f"{rows} {between} {self.groups} {unit}{'s' if self.groups != 1 else ''}"

    @property
    def tested(self) -> str:
        """The test's p and the numbers that it follows from."""
        test = self.mcnemar
        if self.groups is None:
            return f"McNemar p = {test.p_value:.3g} ({test.b} against {test.c})"
        unit = "video" if self._by_video else "group"
        gains = ", ".join(
            f"{gain:+d} in {count} {unit}{'s' if count > 1 else ''}"
            for gain, count in sorted(test.gains.items(), reverse=True)
        )
        return (
            f"McNemar p = {test.p_value:.3g} by flipping the signs of whole {unit}s "
            f"({self.things} gained: {gains or 'none'})"
        )

    @property
    def units(self) -> str:
        """What the test counts: "videos" or "groups"."""
        return "videos" if self.groups is None or self._by_video else "groups"

    @property
    def _by_video(self) -> bool:
        return self.things == "segments"


def mcnemar(
    correct_a: npt.NDArray[np.bool_],
    correct_b: npt.NDArray[np.bool_],
    *,
    groups: Sequence[object] | None = None,
) -> McNemar:
    """Test whether two heads differ, by the videos that only one classifies correctly.

    For rows in groups it is a permutation test: without a difference, a group's gain is as likely
    with the other sign. It is exact for any number of groups and any dependence within them.

    Sources: McNemar, Q. (1947). Note on the sampling error of the difference between
    correlated proportions or percentages. Psychometrika 12, 153-157; the exact form. For groups:
    Durkalski, V. L. et al. (2003). The analysis of clustered matched-pair data. Statistics in
    Medicine 22, 2417-2428, with the permutation distribution in place of the normal one.

    Args:
        correct_a: Whether the first head is correct, shape (N,).
        correct_b: Whether the second head is correct on the same rows.
        groups: Each row's group, where rows are not independent: the video of a segment, or the
            person of a video.

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
    gain = np.bincount(members(groups), weights=correct_b.astype(float) - correct_a)
    counts = Counter(np.rint(gain[gain != 0]).astype(int).tolist())
    return McNemar(b=b, c=c, p_value=_sign_flip_p(counts), gains=dict(sorted(counts.items())))


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


def clustered_difference(
    correct_a: npt.NDArray[np.bool_], correct_b: npt.NDArray[np.bool_], groups: Sequence[object]
) -> Estimate:
    """Difference of two proportions of the same rows in groups, with its 95 % interval.

    The mean of the rows' gains with the variance of the groups' sums (`clusters.clustered_mean`)
    and the quantile of t; never narrower than for independent rows.

    Args:
        correct_a: Whether the first head is correct, shape (N,).
        correct_b: Whether the second head is correct on the same rows.
        groups: Each row's group.

    Returns:
        Second minus first.
    """
    member, n = members(groups), len(correct_a)
    b, c, both = (
        float(rows.sum())
        for rows in (correct_a & ~correct_b, correct_b & ~correct_a, correct_a & correct_b)
    )
    plain = paired_difference(b, c, both, n)
    if int(member.max()) + 1 == n:
        return plain
    gain = correct_b.astype(float) - correct_a
    found = clustered_mean(gain, member)
    if found.variance > 0:
        half = found.quantile * math.sqrt(found.variance)
        low, high = max(-1.0, found.mean - half), min(1.0, found.mean + half)
    else:
        # All groups have the same gain: each may be worth no more than one row.
        few = found.worth / n
        worth = paired_difference(few * b, few * c, few * both, found.worth)
        low, high = (worth.low, worth.high) if found.groups > 1 else (-1.0, 1.0)
    return Estimate(
        value=plain.value,
        low=min(low, plain.low),
        high=max(high, plain.high),
        caveat=caveat(found.groups, few=few_gains(gain, member)),
    )


def compare(predictions_a: pd.DataFrame, predictions_b: pd.DataFrame) -> Comparison:
    """Compare two heads on the videos that both were measured on.

    Args:
        predictions_a: `video_id, label, predicted` of the first head on one split; with
            `of_video` for segments and `group` for videos that share something, which are not
            independent of each other.
        predictions_b: The same of the second head, whose groups count where both have some.

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
    groups = _groups(both["video_id"], predictions_b, predictions_a)
    tested = mcnemar(correct_a, correct_b, groups=groups)
    agreed = int((correct_a & correct_b).sum())
    rows = both[correct_a != correct_b].rename(columns={"label_a": "label"})
    discordant = rows[["video_id", "label", "predicted_a", "predicted_b"]].assign(
        right=np.where(correct_a[correct_a != correct_b], "a", "b")
    )
    return Comparison(
        n=n,
        groups=None if groups is None else len(set(groups)),
        errors_a=len(set(np.asarray(both["video_id"] if groups is None else groups)[~correct_a])),
        things="segments" if "of_video" in predictions_a else "videos",
        accuracy_a=_accuracy(correct_a, groups),
        accuracy_b=_accuracy(correct_b, groups),
        difference=paired_difference(tested.b, tested.c, agreed, n)
        if groups is None
        else clustered_difference(correct_a, correct_b, groups),
        mcnemar=tested,
        discordant=discordant.reset_index(drop=True),
        per_class=_per_class(both["label_a"], correct_a, correct_b),
    )


def _groups(ids: pd.Series, *tables: pd.DataFrame) -> list[str] | None:
    """The group of each id, of the first table that has groups; else the video of each segment."""
    for column in ("group", "of_video"):
        for table in tables:
            if column in table:
                return [str(one) for one in table.set_index("video_id")[column].loc[ids]]
    return None


def _accuracy(correct: npt.NDArray[np.bool_], groups: Sequence[str] | None) -> Estimate:
    if groups is None:
        return proportion(int(correct.sum()), len(correct))
    return clustered_proportion(correct, groups)


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


def _sign_flip_p(gains: Mapping[int, int]) -> float:
    """P of a sum as far from 0 when each gain has either sign with probability 1/2, exactly.

    Args:
        gains: Number of groups by gain.
    """
    if set(gains) <= {-1, 1}:
        return _binomial_p(gains.get(-1, 0), gains.get(1, 0))
    sizes = np.array([abs(gain) for gain, count in gains.items() for _ in range(count)])
    observed, most = abs(sum(gain * count for gain, count in gains.items())), int(sizes.sum())
    # share[k]: the probability that the gains with a plus are k in sum.
    share = np.zeros(most + 1)
    share[0] = 1.0
    for size in sizes:
        with_plus = np.concatenate([np.zeros(size), share[:-size]])
        share = (share + with_plus) / 2
    sums = np.abs(2 * np.arange(most + 1) - most)
    return min(1.0, float(share[sums >= observed].sum()))
