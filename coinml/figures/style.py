"""The style of all figures: colours, panels, and writing a figure to a file.

Figures are drawn without a display, and without pyplot, whose global state is not thread-safe.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from coinml.runtime.escaping import printable

TRAIN_COLOUR, VAL_COLOUR, GREY = "#7a8ca3", "#d1495b", "#6b7280"
A_COLOUR, B_COLOUR, PALE = "#2a6f97", "#d1495b", "#c9d3de"
SERIES_COLOURS = (A_COLOUR, B_COLOUR, "#e0a030", "#5b8c5a", "#7b5ea7", "#3aa6a6", "#8d6e63")

LONGEST_NAME = 34
"""Characters of a name that a figure shows."""

# Text in SVG remains text, so that it can be searched.
mpl.rcParams["svg.fonttype"] = "none"

_FAMILIES = list(mpl.rcParams["font.family"])
"""The fonts of text without Chinese, Japanese and Korean."""


def _add_cjk_font() -> None:
    """Have text fall back to a font with Chinese, Japanese and Korean, which matplotlib has not."""
    found = find_spec("noto_cjk_sans_otc")
    if found is not None and found.origin is not None:
        # Of the collection, matplotlib 3.10 knows the first font alone; each has all characters.
        font_manager.fontManager.addfont(Path(found.origin).with_name("NotoSansCJK-Regular.ttc"))
        mpl.rcParams["font.family"] = [*mpl.rcParams["font.family"], "Noto Sans CJK JP"]


_add_cjk_font()


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
        figure.suptitle(
            figure_text(title, longest=None),
            fontsize=11,
            x=0.02,
            ha="left",
            fontweight="bold",
            # The font for CJK has no bold, which matplotlib would log for every figure.
            fontfamily=_FAMILIES if title.isascii() else None,
        )
    return figure, axes


def figure_text(name: str, *, longest: int | None = LONGEST_NAME) -> str:
    """A name from outside as text of a figure: shortened, and never a formula.

    A character that no font has is shown by its name (`[onion]`) or number (`U+0915`).

    Args:
        name: Such as a class or a file.
        longest: Characters that are shown; None shows all.
    """
    text = "".join(map(_drawn, printable(name)))
    if longest is not None and len(text) > longest:
        text = f"{text[: longest - 1]}…"
    # Between two dollar signs, matplotlib reads a formula.
    return text.replace("$", r"\$")


@cache
def _drawn(character: str) -> str:
    """A character as the fonts of figures can draw it."""
    if character.isspace() or any(ord(character) in font for font in _characters()):
        return character
    category = unicodedata.category(character)
    if category in ("Cf", "Mn"):
        # Joiners and selectors of variants take no place of their own.
        return ""
    known = unicodedata.name(character, "")
    return f"[{known.lower()}]" if category == "So" and known else f"U+{ord(character):04X}"


@cache
def _characters() -> list[frozenset[int]]:
    """The characters of each font that text falls back to."""
    families = mpl.rcParams["font.family"]
    paths = [font_manager.findfont(FontProperties(family=[family])) for family in families]
    return [frozenset(font_manager.get_font(path).get_charmap()) for path in paths]


def series_colour(index: int) -> str:
    """The colour of the series with this index."""
    return SERIES_COLOURS[index % len(SERIES_COLOURS)]
