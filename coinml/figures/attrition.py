"""The figure of a dataset's collection: videos collected, still possible, and lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from coinml.figures.style import A_COLOUR, B_COLOUR, PALE, figure_text, new_figure

if TYPE_CHECKING:
    from coinml.ledger import Status

_PASSING = ("pending", "transient", "blocked", "local")
"""States of videos that may still come."""
_MOST_LOST = 25
"""Number of classes that the figure shows."""


def attrition(status: Status, *, title: str = "") -> Figure:
    """A dataset's videos by state, and the classes that lost most.

    Args:
        status: State of the dataset's collection.
        title: Title of the figure.
    """
    states = {"downloaded": status.downloaded, **status.faults, "pending": status.pending}
    states = {name: count for name, count in states.items() if count}
    classes = sorted(
        status.by_class.items(), key=lambda item: (-item[1].lost / item[1].total, item[0])
    )[:_MOST_LOST]
    rows = max(len(states), len(classes))
    figure, (left, right) = new_figure(12, float(np.clip(1.6 + 0.3 * rows, 3, 12)), 1, 2, title)
    place = np.arange(len(states))[::-1]
    colours = [
        A_COLOUR if name == "downloaded" else PALE if name in _PASSING else B_COLOUR
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
        ("downloaded", A_COLOUR, [c.downloaded / c.total for _, c in classes]),
        ("still possible", PALE, [c.possible / c.total for _, c in classes]),
        ("lost", B_COLOUR, [c.lost / c.total for _, c in classes]),
    ):
        right.barh(place, values, left=start, color=colour, height=0.7, label=label)
        start = start + np.array(values)
    right.set_yticks(place, [f"{figure_text(name)} ({c.total})" for name, c in classes])
    right.set_xlim(0, 1)
    right.set_xlabel("share of the class (in brackets: its videos), the most lost first")
    right.grid(visible=False, axis="y")
    right.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure
