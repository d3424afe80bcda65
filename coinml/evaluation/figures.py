"""Plots, drawn without a display and without pyplot's global state.

Functions return figures; `save` writes one. They are used from several threads at once,
which pyplot does not allow. Those of one head's evaluation are in `run_figures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from coinml.evaluation import Comparison, Estimate

if TYPE_CHECKING:
    from coinml.ledger import Status

TRAIN_COLOUR, VAL_COLOUR, GREY = "#7a8ca3", "#d1495b", "#6b7280"
A_COLOUR, B_COLOUR = "#2a6f97", "#d1495b"
_POSSIBLE, _PASSING = "#c9d3de", ("pending", "transient", "blocked", "local")
_MOST_LOST = 25
"""So many classes stand in the attrition figure."""


def save(figure: Figure, path: Path, *, dpi: int = 120) -> None:
    """Write a figure; the ending of the path chooses the format."""
    figure.savefig(path, dpi=dpi)


def new_figure(
    width: float,
    height: float,
    rows: int,
    columns: int,
    title: str,
    *,
    height_ratios: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes]]:
    """A sheet with panels, in the manner of all figures here; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(np.atleast_1d(figure.subplots(rows, columns, height_ratios=height_ratios)).ravel())
    for axis in axes:
        axis.grid(color="#e5e7eb", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title, fontsize=11, x=0.02, ha="left", fontweight="bold")
    return figure, axes


def curves(history: pd.DataFrame, *, title: str = "", best_epoch: int | None = None) -> Figure:
    """Loss, accuracy and macro-F1 by epoch, training and validation.

    Args:
        history: One row an epoch, with the columns of `coinml.heads.mlp.EpochMetrics`.
        title: Over the three panels.
        best_epoch: Marked, if given: the epoch whose weights were kept.
    """
    figure, axes = new_figure(11, 3.6, 1, 3, title)
    for axis, (name, label) in zip(
        axes,
        (("loss", "loss (nats)"), ("accuracy", "accuracy"), ("f1_macro", "macro-F1")),
        strict=True,
    ):
        for side, colour in (("train", TRAIN_COLOUR), ("val", VAL_COLOUR)):
            axis.plot(history["epoch"], history[f"{side}_{name}"], color=colour, label=side)
        if best_epoch is not None:
            axis.axvline(best_epoch, color=GREY, linewidth=1, linestyle=":", label="kept")
        if name != "loss":
            axis.set_ylim(0, 1.02)
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].legend(frameon=False)
    return figure


def comparison(
    names: Sequence[str],
    estimates: Sequence[Mapping[str, Estimate]],
    *,
    majority_rate: float,
    title: str = "",
    paired: Comparison | None = None,
) -> Figure:
    """Several heads beside each other, each number with its 95 % interval.

    Args:
        names: Of the heads.
        estimates: Their numbers on one split, by the names that `Evaluation` has for them, in
            the order of the heads.
        majority_rate: What always answering the most frequent class would score.
        title: Over the panel.
        paired: The paired test of the first two; its verdict is written below.
    """
    figure, (axis,) = new_figure(8.5, 4.4, 1, 1, title)
    measures = (
        ("accuracy", "accuracy"),
        ("accuracy_missing_wrong", "accuracy,\nmissing = wrong"),
        ("f1_macro", "macro-F1"),
        ("top5_accuracy", "top-5"),
    )
    width = 0.8 / len(names)
    for i, (name, measured) in enumerate(zip(names, estimates, strict=True)):
        shown = [measured[key] for key, _ in measures]
        place = np.arange(len(measures)) + (i - (len(names) - 1) / 2) * width
        values = np.array([e.value for e in shown])
        below = values - [e.low for e in shown]
        above = np.array([e.high for e in shown]) - values
        axis.bar(place, values, width * 0.92, label=name, color=_colour(i))
        axis.errorbar(
            place, values, np.maximum([below, above], 0), fmt="none", ecolor="black", capsize=3
        )
        for x, value, rise in zip(place, values, above, strict=True):
            axis.text(x, value + rise + 0.015, f"{value:.2f}", ha="center", fontsize=8)
    # Named in the legend: written on the line it would stand behind the bars.
    axis.axhline(
        majority_rate, color="black", linestyle=":", linewidth=1.2,
        label="majority class",
    )  # fmt: skip
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
            f"on {paired.n} common videos; McNemar p = {paired.mcnemar.p_value:.3g}",
            labelpad=10,
        )
    return figure


def class_differences(
    per_class: pd.DataFrame, names: Sequence[str], *, title: str = "", limit: int = 40
) -> Figure:
    """In which classes one head gets more videos right than the other.

    Args:
        per_class: `Comparison.per_class`.
        names: Of the two heads.
        title: Over the panel.
        limit: So many classes are shown, those with the largest differences.
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
    axis.set_yticks(place, [str(name) for name in rows["class"]])
    axis.tick_params(axis="y", labelsize=9 if len(rows) <= 25 else 8)
    reach = 1.6 * float(rows["difference"].abs().max()) if len(rows) else 1.0
    axis.set_xlim(-reach, reach)
    axis.set_ylim(-0.6, max(len(rows), 1) - 0.4)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(visible=False, axis="y")
    same = len(per_class) - len(differing)
    axis.set_xlabel(
        f"videos that {names[1]} gets right beyond {names[0]} "
        f"({same} of {len(per_class)} classes: no difference)"
    )
    return figure


def svm_search(search: pd.DataFrame, *, title: str = "") -> Figure:
    """Validation curves over C (a line each kernel and gamma) and over gamma (a line each C).

    Dotted are the same settings on the training videos: far above val is learnt by heart.

    Args:
        search: `SVMHead.search`.
        title: Over the panels.
    """
    rbf = search[search["kernel"] == "rbf"]
    panels = 2 if rbf["gamma"].nunique() > 1 else 1
    figure, axes = new_figure(6.5 * panels, 4.6, 1, panels, title)
    best = search.sort_values(["val_accuracy", "val_f1_macro", "fit"]).iloc[-1]
    chosen = search[
        (search["val_accuracy"] == best["val_accuracy"])
        & (search["val_f1_macro"] == best["val_f1_macro"])
    ].iloc[0]
    by_c = search.groupby(["kernel", search["gamma"].fillna(0.0)], sort=True)
    lines = [
        ("linear" if kernel == "linear" else f"RBF, gamma {gamma:g}/D", rows)
        for (kernel, gamma), rows in by_c
    ]
    _validation_curves(axes[0], lines, chosen, over="c", label="C")
    if panels == 2:
        lines = [(f"RBF, C {c:g}", rows) for c, rows in rbf.groupby("c", sort=True)]
        of_it = chosen if chosen["kernel"] == "rbf" else None
        _validation_curves(axes[1], lines, of_it, over="gamma", label="gamma (in units of 1/D)")
    return figure


def _validation_curves(
    axis: Axes,
    lines: Sequence[tuple[str, pd.DataFrame]],
    chosen: pd.Series[Any] | None,
    *,
    over: str,
    label: str,
) -> None:
    for i, (name, rows) in enumerate(lines):
        rows, colour = rows.sort_values(over), _colour(i)
        axis.plot(
            rows[over], rows["val_accuracy"], color=colour, marker="o", markersize=4, label=name
        )
        axis.plot(
            rows[over], rows["train_accuracy"], color=colour, marker="o", markersize=2,
            linewidth=0.9, linestyle=":", alpha=0.7,
        )  # fmt: skip
    if chosen is not None:
        axis.plot(
            chosen[over], chosen["val_accuracy"], label="chosen", marker="o", markersize=12,
            fillstyle="none", color="black", linestyle="none",
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_ylim(0, 1.02)
    axis.set_xlabel(label)
    axis.set_ylabel("accuracy on val (dotted: training)")
    axis.legend(
        frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3
    )  # fmt: skip


def attrition(status: Status, *, title: str = "") -> Figure:
    """What became of a dataset's videos: all by state, and the classes that lost most.

    Args:
        status: Where the dataset stands.
        title: Over the two panels.
    """
    states = {"here": status.downloaded, **status.faults, "pending": status.pending}
    states = {name: count for name, count in states.items() if count}
    classes = sorted(
        status.by_class.items(), key=lambda item: (-item[1].lost / item[1].total, item[0])
    )[:_MOST_LOST]
    rows = max(len(states), len(classes))
    figure, (left, right) = new_figure(12, float(np.clip(1.6 + 0.3 * rows, 3, 12)), 1, 2, title)
    place = np.arange(len(states))[::-1]
    colours = [
        A_COLOUR if name == "here" else _POSSIBLE if name in _PASSING else B_COLOUR
        for name in states
    ]
    bars = left.barh(place, list(states.values()), color=colours, height=0.7)
    left.bar_label(bars, [f"{n:,} ({n / status.total:.1%})" for n in states.values()], padding=4)
    left.set_yticks(place, list(states))
    left.set_xlim(0, 1.3 * max(states.values(), default=1))
    left.set_xlabel("videos")
    left.grid(visible=False, axis="y")
    place = np.arange(len(classes))[::-1]
    start = np.zeros(len(classes))
    for label, colour, values in (
        ("here", A_COLOUR, [c.downloaded / c.total for _, c in classes]),
        ("still possible", _POSSIBLE, [c.possible / c.total for _, c in classes]),
        ("lost", B_COLOUR, [c.lost / c.total for _, c in classes]),
    ):
        right.barh(place, values, left=start, color=colour, height=0.7, label=label)
        start = start + np.array(values)
    right.set_yticks(place, [f"{name} ({c.total})" for name, c in classes])
    right.set_xlim(0, 1)
    right.set_xlabel("share of the class (in brackets: its videos), the most lost first")
    right.grid(visible=False, axis="y")
    right.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure


def _colour(index: int) -> str:
    palette = (A_COLOUR, B_COLOUR, "#e0a030", "#5b8c5a", "#7b5ea7", "#3aa6a6", "#8d6e63")
    return palette[index % len(palette)]


# Text stays text in SVG, so that a page can search it; and no font cache chatter.
mpl.rcParams["svg.fonttype"] = "none"
