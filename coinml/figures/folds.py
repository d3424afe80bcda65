"""The figure of a cross-validation: accuracy of each fold, and the interval of the mean."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from coinml.evaluation.intervals import Estimate
from coinml.figures.style import A_COLOUR, B_COLOUR, new_figure


def folds_figure(by_fold: pd.DataFrame, accuracy: Estimate, *, title: str = "") -> Figure:
    """Accuracy of each fold by repeat, each repeat's mean, and the mean with its interval.

    Args:
        by_fold: `CrossValidation.by_fold`.
        accuracy: Mean over the folds.
        title: Title of the figure.
    """
    figure, (axis,) = new_figure(6.5, 4.2, 1, 1, title)
    axis.axhspan(accuracy.low, accuracy.high, color=A_COLOUR, alpha=0.15, label="95 % interval")
    axis.axhline(accuracy.value, color=A_COLOUR, label=f"accuracy {accuracy.value:.3f}")
    of_repeat = by_fold.groupby("repeat")[["right", "test"]].sum()
    shift = (by_fold["fold"] - by_fold["fold"].mean()) * 0.08
    axis.plot(by_fold["repeat"] + shift, by_fold["accuracy"], "o", color=B_COLOUR, label="a fold")
    axis.plot(
        of_repeat.index,
        of_repeat["right"] / of_repeat["test"],
        "_",
        color="black",
        markersize=22,
        label="a repeat",
    )
    axis.set_xticks(np.arange(len(of_repeat)), [f"{number + 1}" for number in of_repeat.index])
    axis.set_xlim(-0.5, len(of_repeat) - 0.5)
    axis.set_ylim(min(0.0, accuracy.low), 1.02)
    axis.set_xlabel("repeat")
    axis.set_ylabel("accuracy")
    axis.legend(frameon=False, fontsize=8, loc="lower left", ncols=2)
    return figure
