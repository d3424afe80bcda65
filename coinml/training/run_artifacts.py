"""Figures, tables and predictions that a training logs to its run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from coinml.data.records import SPLITS, Split
from coinml.data.targets import domains_of_classes
from coinml.embedding_sets.table import ids_digest
from coinml.evaluation.abstention import ValAnswers
from coinml.evaluation.evaluate import Evaluation, confused_pairs
from coinml.evaluation.predictions import predictions_table
from coinml.figures.evaluation import figures_of
from coinml.figures.training import curves
from coinml.heads.kinds import head_kind
from coinml.heads.protocol import head_input
from coinml.monitoring.reference import REFERENCE, reference_table
from coinml.tracking.run_log import RunLog
from coinml.training.training_data import SplitData, TrainingData
from coinml.training.unregistered import FittedHead

if TYPE_CHECKING:
    from coinml.heads.protocol import Head


def log_fit(head: str, fit: FittedHead, log: RunLog) -> None:
    """Log the chosen settings, the epochs' curves, and the table and figure of the search.

    Args:
        head: Name of the head.
        fit: The fitted head and the record of its training.
        log: Log of its run.
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
    data: TrainingData,
    split_data: SplitData,
    evaluations: Mapping[Split, Evaluation],
) -> pd.DataFrame:
    """Log a head's predictions, the figures and tables of the test split, and the videos' ids.

    Returns:
        The predictions, as `predictions_table` makes them, of all splits.

    Args:
        log: Log of its run.
        head: The fitted head.
        data: The training data.
        split_data: The training data by split.
        evaluations: What was measured on each split.
    """
    parts = split_data.samples
    domains = domains_of_classes(data.dataset.videos, target=data.target)
    log.table("leaks", split_data.leaks)
    log.table("contradictions", split_data.contradictions)
    log.table("class_counts", split_data.class_counts)
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
    # A CSV of vectors would be of no use to a reader.
    log.table(REFERENCE, reference_table(parts), csv=False)
    log.table("abstention", ValAnswers.of(predictions).table())
    test = evaluations["test"]
    log.table("per_class", test.per_class)
    log.table("calibration", test.reliability)
    log.table("confused_pairs", confused_pairs(test.confusion, head.classes))
    drawn = figures_of(test, head.classes, domains=domains, things=parts["test"].things)
    for name, figure in drawn.items():
        log.figure(name, figure)
    log.json(
        "coverage",
        {
            split: {
                "official": data.official_sizes[split],
                "measured": len(parts[split]),
                "videos": parts[split].videos,
                "ids_digest": ids_digest(parts[split].ids),
                "ids": list(parts[split].ids),
            }
            for split in SPLITS
        },
    )
    return predictions
