"""Figures of a head's training: metrics by epoch, and the SVM's search over C and gamma."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from coinml.figures.style import GREY, TRAIN_COLOUR, VAL_COLOUR, new_figure, series_colour


def curves(history: pd.DataFrame, *, title: str = "", best_epoch: int | None = None) -> Figure:
    """Loss, accuracy and macro-F1 by epoch, training and validation.

    Args:
        history: One row per epoch, with the columns of `training_loop.EpochMetrics`.
        title: Title of the figure.
        best_epoch: The epoch whose weights were kept, to be marked.
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


def svm_search(search: pd.DataFrame, *, title: str = "SVM, accuracy over C and gamma") -> Figure:
    """Val accuracy over C (one line per kernel and gamma) and over gamma (one line per C).

    Dotted lines are training accuracy; far above val accuracy, the setting overfits.

    Args:
        search: `SVMHead.search`.
        title: Title of the figure.
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
        rows, colour = rows.sort_values(over), series_colour(i)
        axis.plot(
            rows[over], rows["val_accuracy"], color=colour, marker="o", markersize=4, label=name
        )
        axis.plot(
            rows[over],
            rows["train_accuracy"],
            color=colour,
            marker="o",
            markersize=2,
            linewidth=0.9,
            linestyle=":",
            alpha=0.7,
        )
    if chosen is not None:
        axis.plot(
            chosen[over],
            chosen["val_accuracy"],
            label="chosen",
            marker="o",
            markersize=12,
            fillstyle="none",
            color="black",
            linestyle="none",
        )
    axis.set_xscale("log")
    axis.set_ylim(0, 1.02)
    axis.set_xlabel(label)
    axis.set_ylabel("accuracy on val (dotted: training)")
    axis.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
