"""The miniature's six tasks: which surface, which tool, which motions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStep:
    """A step that a task may consist of.

    Attributes:
        step_id: Its id in the annotations.
        label: What is done in it.
        motion: The tool's motion, one of `compositions.MOTIONS`.
    """

    step_id: str
    label: str
    motion: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task: told by the combination, since no part of it is its own.

    Attributes:
        name: The class, in COIN's style.
        recipe_type: Its number in the annotations.
        domain: What it belongs to, as COIN's taxonomy puts tasks together.
        surface: One of `compositions.SURFACES`.
        tool: One of `compositions.TOOLS`.
        steps: In the order in which they are done.
    """

    name: str
    recipe_type: int
    domain: str
    surface: str
    tool: str
    steps: tuple[TaskStep, ...]


def _task(
    recipe_type: int, name: str, surface: str, tool: str, steps: dict[str, tuple[str, str]]
) -> Task:
    return Task(
        name=name,
        recipe_type=recipe_type,
        domain=_DOMAINS[name],
        surface=surface,
        tool=tool,
        steps=tuple(
            TaskStep(step_id=step_id, motion=motion, label=label)
            for step_id, (motion, label) in steps.items()
        ),
    )


_DOMAINS = {
    "PolishStripedPlate": "Household",
    "ScrubCheckedFloor": "Household",
    "ScrapeStripedBoard": "Workshop",
    "PaintDottedWall": "Workshop",
    "StampCheckedCloth": "Craft",
    "PressDottedDough": "Craft",
}
"""Two tasks each, that share neither surface nor tool: a domain is not seen by one look."""

# Each surface, tool and motion stands in two tasks or more. "slide the bar across" stands
# under two ids, as 25 of COIN's own labels do.
TASKS: tuple[Task, ...] = (
    _task(
        0,
        "PolishStripedPlate",
        "stripes",
        "disc",
        {"1": ("circle", "move the disc in circles"), "2": ("slide", "slide the disc across")},
    ),
    _task(
        1,
        "ScrapeStripedBoard",
        "stripes",
        "bar",
        {"3": ("slide", "slide the bar across"), "4": ("lift", "pull the bar up and down")},
    ),
    _task(
        2,
        "StampCheckedCloth",
        "checks",
        "cross",
        {"5": ("dab", "dab with the cross"), "6": ("press", "press the cross down")},
    ),
    _task(
        3,
        "ScrubCheckedFloor",
        "checks",
        "bar",
        {"7": ("slide", "slide the bar across"), "8": ("circle", "move the bar in circles")},
    ),
    _task(
        4,
        "PaintDottedWall",
        "dots",
        "disc",
        {"9": ("lift", "move the disc up and down"), "10": ("dab", "dab with the disc")},
    ),
    _task(
        5,
        "PressDottedDough",
        "dots",
        "cross",
        {"11": ("press", "press the cross into the dough"), "12": ("lift", "lift the cross")},
    ),
)

TRIPLES: frozenset[tuple[str, str, str]] = frozenset(
    (task.surface, task.tool, step.motion) for task in TASKS for step in task.steps
)
"""Every (surface, tool, motion) that the tasks show; pretraining never sees one of them."""
