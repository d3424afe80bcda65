"""The miniature's six tasks: combinations of a surface, a tool and motions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStep:
    """A step of a task.

    Attributes:
        step_id: Id in the annotations.
        label: Name of the step.
        motion: Motion of the tool, one of `scenes.MOTIONS`.
    """

    step_id: str
    label: str
    motion: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task, which only the combination identifies: each part also occurs in other tasks.

    Attributes:
        name: Class name in COIN's style.
        recipe_type: Number in the annotations.
        domain: Domain in the taxonomy.
        surface: One of `scenes.SURFACES`.
        tool: One of `scenes.TOOLS`.
        steps: The steps in order.
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
"""Domain by task. The two tasks of a domain share neither surface nor tool."""

# Each surface, tool and motion occurs in two tasks or more. "slide the bar across" has two ids,
# as 25 of COIN's labels do.
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
"""Every (surface, tool, motion) of the tasks, which pretraining never draws."""
