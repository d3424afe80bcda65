"""What callers of training and of sweeps add to a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What a run gets besides the results of training, and a callback for its progress.

    Attributes:
        tags: More tags for the run.
        links: Addresses for the run's description, by what they lead to.
        fits_folder: Folder for the fitted head until it is registered, so that a call after a
            failure continues from there; None keeps nothing.
        sweep_trials: Number of trials of the sweep that chose the options; the gate accounts for
            them.
        on_step: Called after each epoch or setting; an exception that it raises ends the
            training.
        before_version: Called when the model is stored and before its version is created; it may
            wait until other versions are.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    fits_folder: Path | None = None
    sweep_trials: int = 0
    on_step: Callable[[], None] = lambda: None
    before_version: Callable[[], None] = lambda: None
