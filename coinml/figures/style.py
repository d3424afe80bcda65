"""The style of all figures: colours, panels, and writing a figure to a file.

Figures are drawn without a display, and without pyplot, whose global state is not thread-safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

TRAIN_COLOUR, VAL_COLOUR, GREY = "#7a8ca3", "#d1495b", "#6b7280"
A_COLOUR, B_COLOUR, PALE = "#2a6f97", "#d1495b", "#c9d3de"
SERIES_COLOURS = (A_COLOUR, B_COLOUR, "#e0a030", "#5b8c5a", "#7b5ea7", "#3aa6a6", "#8d6e63")

# Text in SVG remains text, so that it can be searched.
mpl.rcParams["svg.fonttype"] = "none"


def save(figure: Figure, path: Path, *, dpi: int = 120) -> None:
    """Write a figure, in the format that the path's ending names."""
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
    """A figure with a grid of panels, in the style of all figures; sizes in inches."""
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


def series_colour(index: int) -> str:
    """The colour of the series with this index."""
    return SERIES_COLOURS[index % len(SERIES_COLOURS)]
