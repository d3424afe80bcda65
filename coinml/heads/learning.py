"""Any head, fitted on train and chosen on val: the one place that knows which trainer is whose.

Nothing here is ever given a test video; training and tuning both come through here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from coinml.embedding_sets.table import Samples
from coinml.errors import InvalidInputError
from coinml.heads.kinds import check_heads
from coinml.heads.svm_search import grid_of

if TYPE_CHECKING:
    from coinml.heads.kinds import Head

Numbers = Mapping[str, float]
"""Metrics by their MLflow names."""

NETWORKS = ("mlp", "attentive")
"""The heads that are trained epoch by epoch; the others try settings one by one."""


def fit_head(
    head: str,
    train: Samples,
    val: Samples,
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
    on_step: Callable[[Numbers], None] | None = None,
) -> Head:
    """Fit a head.

    Args:
        head: One of `HEADS`.
        train: What it learns from.
        val: What chooses among epochs or settings.
        options: Of the head's own trainer, in place of its defaults.
        seed: Of everything random.
        device: For the heads that are networks.
        on_step: Called after each epoch with its numbers, or after each setting with none;
            what it raises ends the fit.

    Raises:
        InvalidInputError: An unknown head, or an option that it has not or does not allow.
    """
    check_heads([head])
    step = on_step or (lambda _numbers: None)
    given: dict[str, Any] = {"seed": seed, **(options or {})}
    if head in NETWORKS:
        given |= {"device": device, "on_epoch": lambda epoch: step(_numbers(epoch))}
    else:
        given |= {"on_fit": lambda *_: step({})}
    trainer = _trainer(head)
    try:
        fitted: Head = trainer(train, val, **given)
    except TypeError as err:
        if "unexpected keyword argument" not in str(err):
            raise
        raise InvalidInputError(f"{head} has no such option: {err}") from err
    return fitted


def options_of(head: str, options: Mapping[str, Any]) -> dict[str, object]:
    """What a head is trained with, for the run's parameters.

    Of a network everything, defaults as well; of the heads that try settings one by one only what
    was asked for, since `settings_of` says what they chose.
    """
    given = _given(head, options) if head in NETWORKS else options
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        for name, value in given.items()
    }


def most_steps(head: str, options: Mapping[str, Any]) -> int:
    """How often `on_step` is called at most: epochs that may end early, or settings to try."""
    given = _given(head, options)
    if head in NETWORKS:
        return int(given["epochs"])
    if head == "svm":
        grid = grid_of(given["kernels"], given["linear_cs"], given["cs"], given["gammas"])
        return sum(len(cs) for _, _, cs in grid)
    return len(given["ks" if head == "knn" else "cs"])


def _given(head: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A trainer's options, its defaults among them."""
    others = ("train", "val", "seed", "device", "jobs", "on_epoch", "on_fit")
    parameters = inspect.signature(_trainer(head)).parameters
    defaults = {name: one.default for name, one in parameters.items() if name not in others}
    return defaults | dict(options)


def settings_of(fitted: Head) -> dict[str, object]:
    """What the fit settled on, for the run's parameters."""
    names = {"kernel": "kernel", "c": "C", "gamma": "gamma", "best_epoch": "best_epoch"}
    found = {shown: getattr(fitted, name, None) for name, shown in names.items()}
    found |= dict(getattr(fitted, "setting", {}))
    # A linear kernel has no gamma.
    return {name: value for name, value in found.items() if value is not None}


def _trainer(head: str) -> Callable[..., Head]:
    if head == "mlp":
        from coinml.heads.mlp import train_mlp

        return train_mlp
    if head == "attentive":
        from coinml.heads.attentive import train_attentive

        return train_attentive
    if head == "svm":
        from coinml.heads.svm import train_svm

        return train_svm
    from coinml.heads.baselines import train_knn, train_logreg

    return train_logreg if head == "logreg" else train_knn


def _numbers(epoch: Any) -> Numbers:
    return {name: float(value) for name, value in asdict(epoch).items() if name != "epoch"}
