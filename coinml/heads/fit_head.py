"""Fitting any head on train and val; no function here is ever given a test video."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from coinml.heads.calibration import calibrate
from coinml.heads.kinds import head_kind

if TYPE_CHECKING:
    from coinml.embedding_sets.table import Samples
    from coinml.heads.protocol import Head, Numbers


def fit_head(
    head: str,
    train: Samples,
    val: Samples,
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
    calibrated: bool = True,
    on_step: Callable[[Numbers], None] | None = None,
) -> Head:
    """Fit a head, and calibrate its scores.

    Args:
        head: One of `heads.kinds.HEADS`.
        train: The samples that it is fitted on.
        val: The samples by which the epoch or the setting is chosen.
        options: Options of the head's own trainer; the others have their defaults.
        seed: Seed of all random numbers.
        device: `cpu`, `cuda`, `cuda:1` or `auto`, for heads with epochs.
        calibrated: Without it, the scores are as the trainer's head gives them. That takes a third
            of the time where val is small, and the predicted classes are the same.
        on_step: Called after each epoch with its metrics, or after each setting with none. An
            exception that it raises ends the fit.

    Raises:
        InvalidInputError: An unknown head or option, or a value that is not allowed.
    """
    kind = head_kind(head)
    kind.check_options(options or {})
    step = on_step or (lambda _numbers: None)
    callbacks: dict[str, Any] = (
        {"device": device, "on_epoch": lambda epoch: step(epoch.metrics())}
        if kind.has_epochs
        else {"on_fit": lambda *_: step({})}
    )
    trainer = kind.load_trainer()
    given = {"seed": seed, **(options or {})}
    fitted = trainer(train, val, **given, **callbacks)
    if not calibrated:
        return fitted

    def refit(part: Samples) -> Head:
        chosen = kind.chosen_options(fitted.settings, len(part))
        place = {"device": device} if kind.has_epochs else {}
        return trainer(part, val, **{**given, **chosen, **place})

    return calibrate(fitted, train, val, refit=refit, seed=seed)
