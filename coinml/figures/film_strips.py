"""A sheet of film strips with a line of text each."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.figure import Figure

from coinml.figures.style import figure_text, new_figure

_COLUMNS = 2


def film_sheet(strips: Sequence[tuple[str, bytes]], title: str) -> Figure:
    """Film strips below each other in two columns.

    Args:
        strips: Text and JPEG of each; without a picture, the JPEG is empty.
        title: Title of the figure.
    """
    from PIL import Image

    rows = max(1, -(-len(strips) // _COLUMNS))
    figure, axes = new_figure(10, 0.5 + 1.5 * rows, rows, _COLUMNS, title)
    for axis in axes:
        axis.axis("off")
    for axis, (text, jpeg) in zip(axes, strips, strict=False):
        axis.set_title(figure_text(text, longest=80), fontsize=7, loc="left")
        if jpeg:
            axis.imshow(Image.open(io.BytesIO(jpeg)))
    return figure
