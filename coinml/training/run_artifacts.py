"""What a training leaves in its run for people: figures, tables, every answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from coinml.data.records import SPLITS, Split
from coinml.embedding_sets.table import Samples, ids_digest
from coinml.evaluation.evaluate import Evaluation, confused_pairs
from coinml.evaluation.predictions import predictions_table
from coinml.figures.evaluation import figures_of
from coinml.figures.training import curves
from coinml.heads.kinds import head_kind
from coinml.heads.protocol import head_input
from coinml.tracking.run_log import RunLog
from coinml.training.unregistered import Fit

if TYPE_CHECKING:
    from coinml.heads.protocol import Head


def log_fit(head: str, fit: Fit, log: RunLog) -> None:
    """Log what a head was fitted with, its curves, and what its search found.

    Args:
        head: Its name, of `coinml.heads.kinds.HEADS`.
        fit: The head and how it came about.
        log: Of its run.
    """
    settings = dict(fit.head.settings)
    if fit.history:
        settings |= {"epochs_trained": len(fit.history)}
    log.params(settings)
    if fit.history:
        epochs = pd.DataFrame(fit.history).assign(epoch=range(1, len(fit.history) + 1))
        log.figure("curves", curves(epochs, best_epoch=settings.get("best_epoch")))
    if not fit.search.empty:
        log.table("search", fit.search)
    search_figure = head_kind(head).draw_search(fit.search)
    if search_figure is not None:
        log.figure("search", search_figure)


def log_evaluation(
    log: RunLog,
    head: Head,
    parts: Mapping[Split, Samples],
    evaluations: Mapping[Split, Evaluation],
    official: Mapping[Split, int],
    domains: Mapping[str, str],
) -> None:
    """Log every answer of a head, the figures and tables of its test, and whom it was shown.

    Args:
        log: Of its run.
        head: As it was fitted.
        parts: The samples of each split.
        evaluations: What was measured on them.
        official: Number of samples that each split has officially, the lost ones included.
        domains: The domain of each class, where there are domains.
    """
    predictions = pd.concat(
        [
            predictions_table(
                split,
                parts[split],
                head.predict_proba(head_input(head, parts[split])),
                head.classes,
            )
            for split in SPLITS
        ]
    )
    log.table("predictions", predictions)
    test = evaluations["test"]
    log.table("per_class", test.per_class)
    log.table("calibration", test.reliability)
    log.table("confused_pairs", confused_pairs(test.confusion, head.classes))
    for name, figure in figures_of(test, head.classes, domains=domains).items():
        log.figure(name, figure)
    log.json(
        "coverage",
        {
            split: {
                "official": official[split],
                "measured": len(parts[split]),
                "videos": parts[split].videos,
                "ids_digest": ids_digest(parts[split].ids),
                "ids": list(parts[split].ids),
            }
            for split in SPLITS
        },
    )
