"""Figures that compare heads: their metrics with intervals, and the difference by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from coinml.evaluation.intervals import Estimate
from coinml.evaluation.paired import Comparison
from coinml.figures.style import A_COLOUR, B_COLOUR, figure_text, new_figure, series_colour

_MEASURES = (
    ("accuracy", "accuracy"),
    ("accuracy_missing_wrong", "accuracy,\nmissing = wrong"),
    ("f1_macro", "macro-F1"),
    ("top5_accuracy", "top-5"),
)


def comparison(
    names: Sequence[str],
    estimates: Sequence[Mapping[str, Estimate]],
    *,
    majority_rate: float,
    title: str = "",
    paired: Comparison | None = None,
) -> Figure:
    """The metrics of several heads side by side, with 95 % intervals.

    Args:
        names: Names of the heads.
        estimates: Each head's metrics on one split, by their names in `Evaluation`.
        majority_rate: Accuracy of always predicting the most frequent class.
        title: Title of the figure.
        paired: The paired test of the first two, shown below.
    """
    figure, (axis,) = new_figure(8.5, 4.4, 1, 1, title)
    measures = [
        (key, label) for key, label in _MEASURES if all(key in measured for measured in estimates)
    ]
    width = 0.8 / len(names)
    for i, (name, measured) in enumerate(zip(names, estimates, strict=True)):
        shown = [measured[key] for key, _ in measures]
        place = np.arange(len(measures)) + (i - (len(names) - 1) / 2) * width
        values = np.array([e.value for e in shown])
        below = values - [e.low for e in shown]
        above = np.array([e.high for e in shown]) - values
        axis.bar(place, values, width * 0.92, label=figure_text(name), color=series_colour(i))
        axis.errorbar(
            place, values, np.maximum([below, above], 0), fmt="none", ecolor="black", capsize=3
        )
        for x, value, rise in zip(place, values, above, strict=True):
            axis.text(x, value + rise + 0.015, f"{value:.2f}", ha="center", fontsize=8)
    # Labelled in the legend: text on the line would be behind the bars.
    axis.axhline(
        majority_rate,
        color="black",
        linestyle=":",
        linewidth=1.2,
        label="majority class",
    )
    axis.set_xticks(range(len(measures)), [label for _, label in measures])
    axis.set_xlim(-0.5, len(measures) - 0.5)
    axis.set_ylim(0, 1.18)
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.grid(visible=False, axis="x")
    axis.legend(frameon=False, loc="upper left", ncols=len(names) + 1)
    if paired is not None:
        axis.set_xlabel(
            f"{names[1]} minus {names[0]}: {paired.difference.value:+.3f} "
            f"[{paired.difference.low:+.3f}, {paired.difference.high:+.3f}] "
            f"on {paired.counted('common')}; McNemar p = {paired.mcnemar.p_value:.3g}",
            labelpad=10,
        )
    return figure


def class_differences(
    per_class: pd.DataFrame,
    names: Sequence[str],
    *,
    title: str = "",
    limit: int = 40,
    things: str = "videos",
) -> Figure:
    """The classes in which one head classifies more videos correctly than the other.

    Args:
        per_class: `Comparison.per_class`.
        names: Names of the two heads.
        title: Title of the figure.
        limit: Number of classes shown, those with the largest differences.
        things: What the heads were compared on: "videos" or "segments".
    """
    differing = per_class[per_class["difference"] != 0]
    largest = differing["difference"].abs().sort_values(ascending=False, kind="stable")
    rows = differing.loc[largest.index[:limit]].sort_values(
        ["difference", "class"], ascending=[False, True]
    )
    figure, (axis,) = new_figure(8.5, float(max(2.8, 1.8 + 0.26 * len(rows))), 1, 1, title)
    place = np.arange(len(rows))[::-1]
    colours = [B_COLOUR if value > 0 else A_COLOUR for value in rows["difference"]]
    bars = axis.barh(place, rows["difference"], color=colours, height=0.7)
    counted = zip(rows["correct_a"], rows["correct_b"], rows["support"], strict=True)
    axis.bar_label(
        bars, [f"{a} → {b} of {support}" for a, b, support in counted], padding=3, fontsize=8
    )
    axis.set_yticks(place, [figure_text(name) for name in rows["class"]])
    axis.tick_params(axis="y", labelsize=9 if len(rows) <= 25 else 8)
    reach = 1.6 * float(rows["difference"].abs().max()) if len(rows) else 1.0
    axis.set_xlim(-reach, reach)
    axis.set_ylim(-0.6, max(len(rows), 1) - 0.4)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(visible=False, axis="y")
    same = len(per_class) - len(differing)
    axis.set_xlabel(
        f"correct {things} of {names[1]} minus those of {names[0]} "
        f"({same} of {len(per_class)} classes: no difference)"
    )
    return figure
