"""The figures of one head's evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from coinml.evaluation.evaluate import Evaluation, by_domain, confused_pairs, domain_of
from coinml.figures.style import A_COLOUR, B_COLOUR, GREY, figure_text, new_figure

_NUMBERED_CLASSES = 30
"""A confusion matrix with at most this many classes shows its counts."""
_LABELLED_CLASSES = 60
"""With at most this many, its axes show every class name."""
_MOST_CONFUSED = 30
"""Number of pairs in the figure of confused pairs."""


def figures_of(
    evaluation: Evaluation,
    classes: Sequence[str],
    *,
    split: str = "test",
    domains: Mapping[str, str] | None = None,
    things: str = "videos",
) -> dict[str, Figure]:
    """All figures of one evaluation, by the names under which they are logged.

    Args:
        evaluation: The metrics on one split.
        classes: The class names, in the order of its confusion matrix.
        split: Name of the split, for the titles.
        domains: Domain by class, where there is a taxonomy.
        things: What was measured on: "videos" or "segments".
    """
    title = split.capitalize()
    drawn = {
        "per_class": per_class(evaluation.per_class, title=f"{title}, by class", things=things),
        "confusion": confusion(evaluation.confusion, classes, title=title, domains=domains),
        "calibration": calibration(evaluation, title=f"{title}, calibration", things=things),
    }
    if domains and 1 < len({domain_of(name, domains) for name in classes}) < len(classes):
        matrix, names = by_domain(evaluation.confusion, classes, domains)
        drawn["confusion_domains"] = confusion(matrix, names, title=f"{title}, by domain")
    pairs = confused_pairs(evaluation.confusion, classes)
    if len(classes) > _NUMBERED_CLASSES and len(pairs):
        drawn["confused_pairs"] = most_confused(
            pairs, title=f"{title}, most confused classes", things=things
        )
    return drawn


def confusion(
    matrix: npt.NDArray[np.int64],
    classes: Sequence[str],
    *,
    title: str = "",
    domains: Mapping[str, str] | None = None,
) -> Figure:
    """A confusion matrix: the true class down, the predicted class across.

    Colour is the share of the true class's videos, so that small classes are as visible as large
    ones. Counts and class names are shown where there is room. With more classes, they are grouped
    by domain, and the axes show the domains.

    Args:
        matrix: `Evaluation.confusion`.
        classes: Their names, in its order.
        title: Title of the figure.
        domains: Domain by class, where there is a taxonomy.
    """
    n = len(classes)
    labelled = n <= _LABELLED_CLASSES
    of_class = [domain_of(name, domains) for name in classes] if domains else []
    blocks = not labelled and len(set(of_class)) > 1
    if blocks:
        order = np.lexsort((np.asarray(classes), np.asarray(of_class)))
        matrix, of_class = matrix[np.ix_(order, order)], [of_class[i] for i in order]
    side = float(np.clip(2.6 + 0.42 * n, 4.5, 16))
    figure, (axis,) = new_figure(side + 1.2, side, 1, 1, title)
    # The constrained layout ignores that the panel is square: from some twenty classes on, the axis
    # label would be cut off.
    figure.set_layout_engine("compressed")
    support = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, support, out=np.zeros(matrix.shape), where=support > 0)
    # Small cells without numbers need darker colours to be visible.
    scale = PowerNorm(1.0 if labelled else 0.5, vmin=0, vmax=1)
    image = axis.imshow(share, cmap="Blues", norm=scale, interpolation="nearest")
    if n <= _NUMBERED_CLASSES:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            axis.text(
                column,
                row,
                str(matrix[row, column]),
                ha="center",
                va="center",
                fontsize=9 if n <= 15 else 8,
                color="white" if share[row, column] > 0.6 else "black",
            )
    if labelled:
        names = [figure_text(name) for name in classes]
        axis.set_xticks(range(n), names, rotation=60, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(n), names)
        axis.tick_params(labelsize=9 if n <= 30 else 8)
    elif blocks:
        _mark_blocks(axis, of_class)
    axis.grid(visible=False)
    unit = ""
    if blocks:
        unit = " (classes by domain, then by name)"
    elif not labelled:
        unit = " (index of the class, sorted by name)"
    axis.set_xlabel(f"predicted{unit}")
    axis.set_ylabel(f"true{unit}")
    figure.colorbar(image, ax=axis, label="share of the true class", fraction=0.046, pad=0.03)
    return figure


def per_class(
    table: pd.DataFrame, *, title: str = "", limit: int = 60, things: str = "videos"
) -> Figure:
    """F1 of each class with its support, the best at the top.

    Args:
        table: `Evaluation.per_class`.
        title: Title of the figure.
        limit: With more classes than this, only the best and the worst are shown.
        things: What was measured on.
    """
    rows = table[table["support"] > 0].sort_values(["f1", "class"], ascending=[False, True])
    gap = len(rows) > limit
    if gap:
        rows = pd.concat([rows.head(limit // 2), rows.tail(limit // 2)])
    figure, (axis,) = new_figure(8, float(np.clip(1.6 + 0.26 * len(rows), 2.8, 18)), 1, 1, title)
    place = np.arange(len(rows))[::-1]
    axis.barh(place, rows["f1"], color=A_COLOUR, height=0.7)
    named = zip(rows["class"], rows["support"], strict=True)
    names = [f"{figure_text(name)} ({support})" for name, support in named]
    axis.set_yticks(place, names)
    axis.tick_params(axis="y", labelsize=9 if len(rows) <= 25 else 7)
    if gap:
        axis.axhline(len(rows) / 2 - 0.5, color=GREY, linestyle=":")
        axis.text(
            0.99,
            len(rows) / 2 - 0.5,
            "best above, worst below",
            ha="right",
            va="center",
            fontsize=8,
            color=GREY,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
        )
    axis.set_xlim(0, 1)
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.set_xlabel(f"F1 (in brackets: number of {things})")
    axis.grid(visible=False, axis="y")
    return figure


def calibration(evaluation: Evaluation, *, title: str = "", things: str = "videos") -> Figure:
    """Accuracy over score with 95 % intervals, and a histogram of the scores.

    Args:
        evaluation: The metrics on one split.
        title: Title of the figure.
        things: What was measured on.
    """
    table = evaluation.reliability
    figure, (above, below) = new_figure(5.6, 6.2, 2, 1, title, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="score = accuracy")
    above.errorbar(
        table["score"],
        table["accuracy"],
        yerr=np.maximum(
            [
                table["accuracy"] - table["accuracy_low"],
                table["accuracy_high"] - table["accuracy"],
            ],
            0,
        ),
        color=A_COLOUR,
        marker="o",
        markersize=5,
        capsize=3,
        linewidth=1.4,
        label="predictions with this score",
    )
    mean = float((table["score"] * table["videos"]).sum() / table["videos"].sum())
    for axis in (above, below):
        axis.set_xlim(-0.02, 1.02)
    for value, colour, label in (
        (mean, B_COLOUR, f"mean score {mean:.2f}"),
        (evaluation.accuracy.value, "black", f"accuracy {evaluation.accuracy.value:.2f}"),
    ):
        below.axvline(value, color=colour, linewidth=1.4, linestyle="--", label=label)
    above.set_ylim(-0.02, 1.02)
    above.set_ylabel("accuracy")
    above.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    width = (table["to"] - table["from"]).to_numpy()
    below.bar(table["from"], table["videos"], width=width * 0.94, align="edge", color="#c9d3de")
    below.set_ylabel(things)
    error = evaluation.calibration_error
    below.set_xlabel(f"score of the predicted class; expected calibration error {error:.3f}")
    below.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


def most_confused(
    pairs: pd.DataFrame,
    *,
    title: str = "",
    limit: int = _MOST_CONFUSED,
    things: str = "videos",
) -> Figure:
    """The pairs of classes that are confused most often.

    Args:
        pairs: As `coinml.evaluation.evaluate.confused_pairs` returns it.
        title: Title of the figure.
        limit: Number of pairs shown.
        things: What was measured on.
    """
    rows = pairs.head(limit)
    figure, (axis,) = new_figure(10, 1.6 + 0.26 * len(rows), 1, 1, title)
    place = np.arange(len(rows))[::-1]
    bars = axis.barh(place, rows["videos"], color=B_COLOUR, height=0.7)
    axis.bar_label(bars, [f"{share:.0%}" for share in rows["share"]], padding=3, fontsize=8)
    named = zip(rows["true"], rows["predicted"], strict=True)
    axis.set_yticks(place, [f"{figure_text(true)} → {figure_text(other)}" for true, other in named])
    axis.tick_params(axis="y", labelsize=8)
    axis.set_xlim(0, 1.1 * float(rows["videos"].max()))
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel(f"{things} (and their share of the true class)")
    axis.grid(visible=False, axis="y")
    return figure


def _mark_blocks(axis: Axes, of_class: Sequence[str]) -> None:
    """Draw the borders of domains, and label each block with its domain."""
    names, starts, sizes = np.unique(np.asarray(of_class), return_index=True, return_counts=True)
    for start in starts[starts > 0]:
        axis.axhline(start - 0.5, color=GREY, linewidth=0.6)
        axis.axvline(start - 0.5, color=GREY, linewidth=0.6)
    centres = starts + (sizes - 1) / 2
    labels = [f"{figure_text(name)} ({size})" for name, size in zip(names, sizes, strict=True)]
    axis.set_xticks(centres, labels, rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticks(centres, labels)
    axis.tick_params(labelsize=11)
