"""Flow `train`: heads on an embedding set, each an MLflow run and a registered version."""

from __future__ import annotations

from contextlib import ExitStack

from prefect import flow

from coinml.data.targets import examples
from coinml.embedding_sets.options import SetOptions
from coinml.embedding_sets.quantized_file import find_spec
from coinml.heads.kinds import import_libraries
from coinml.registry.promotion import GateVerdict
from coinml.runtime import progress
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml.training.cv_runs import CvReport
from coinml.training.options import TrainOptions
from coinml.training.sweep_runs import TuneReport
from coinml.training.train_head import model_name
from coinml.training.train_report import TrainReport
from flows.promote import promote
from tasks.alerts import announcing_failures
from tasks.evaluation import compare_runs
from tasks.events import tagged
from tasks.outcomes import completed
from tasks.reporting import report_training
from tasks.stages import logged
from tasks.submitting import submit_in_turn
from tasks.summaries import TrainSummary
from tasks.threads import threads
from tasks.training import (
    check_tracking,
    count_embedded,
    count_trained,
    cross_validate,
    recount_looks,
    train_head,
    tune_head,
)
from tasks.watching import progress_shown, rename_run


@announcing_failures
@flow(name="train", flow_run_name="train {selection.title}", task_runner=threads(2))
def train(
    selection: Selection,
    set_options: SetOptions = SetOptions(),
    training: TrainOptions = TrainOptions(),
    min_new: int = 0,
    ask_gate: bool = False,
) -> TrainSummary:
    """Train heads on the embedded videos, and compare the first two with a paired test.

    Too few new videos do not fail the flow: it trains nothing, and the summary says so.

    Args:
        selection: Which videos.
        set_options: How they became vectors; identifies the embedding set.
        training: Which heads, on which classes, and how.
        min_new: Train only if the set has this many videos more than the heads were last trained
            on; 0 always trains.
        ask_gate: Send the heads through the gate afterwards: one that passes is the champion.

    Raises:
        InvalidInputError: Too little data, or annotations that lack what the target needs.
        LocalError: Runs cannot be recorded in MLflow.
    """
    dataset = selection.load(Settings().data_dir)
    target = training.target_for(set_options)
    made = set_options.for_target(target).resolved(mini=selection.is_mini)
    examples(dataset.videos, target=target)
    check_tracking(model_name(dataset.name, target))
    fingerprint = find_spec(Settings().embeddings_root, dataset.name, made).fingerprint
    grown = None
    if min_new:
        known = count_trained(dataset.name, fingerprint, training.heads, target)
        grown = count_embedded(selection, fingerprint) - known
        if grown < min_new:
            idle = TrainSummary(dataset=dataset.name, target=target, grown=grown, min_new=min_new)
            rename_run(f"train {selection.title}", f"train {selection.title} (nothing to train)")
            return completed(idle, message=str(idle), idle=idle.idle)
    import_libraries()
    with progress_shown(dataset.name):
        tuned = _tune(selection, fingerprint, made, training) if training.sweep else {}
        reports = _train(selection, fingerprint, made, training, tuned)
        cross = _cross_validate(selection, fingerprint, made, training)
    # Each head was counted when it was evaluated, and the others followed.
    reports = recount_looks(reports)
    comparison = compare_runs(reports[0].run_id, reports[1].run_id) if len(reports) > 1 else None
    verdicts: list[GateVerdict] = []
    if ask_gate:
        with tagged():
            versions = [report.version for report in reports]
            verdicts = logged("promote", promote, reports[0].model, versions)
    summary = TrainSummary(
        dataset=dataset.name,
        target=target,
        heads=reports,
        cross_validated=cross,
        comparison=comparison,
        grown=grown,
        min_new=min_new,
        verdicts=tuple(verdicts),
    )
    report_training(summary)
    name = f"train {selection.title}"
    rename_run(name, f"{name}: {summary.scores}")
    return completed(summary, message=str(summary))


def _tune(
    selection: Selection, fingerprint: str, set_options: SetOptions, options: TrainOptions
) -> dict[str, TuneReport]:
    """A sweep for each head; all of them end before any head sees the test videos."""
    with ExitStack() as stages:
        for head in options.heads:
            stages.enter_context(progress.stage(f"sweep {head}", options.sweep))
        futures = {
            head: tune_head.submit(head, selection, fingerprint, set_options, options)
            for head in options.heads
        }
        return {head: future.result() for head, future in futures.items()}


def _cross_validate(
    selection: Selection, fingerprint: str, set_options: SetOptions, options: TrainOptions
) -> tuple[CvReport, ...]:
    """A cross-validation of each head, where one is asked for or the dataset is small."""
    if options.cv == 0:
        return ()
    with ExitStack() as stages:
        for head in options.heads:
            stages.enter_context(progress.stage(f"cross-validate {head}"))
        futures = [
            cross_validate.submit(head, selection, fingerprint, set_options, options)
            for head in options.heads
        ]
        found = [future.result() for future in futures]
    return tuple(report for report in found if report is not None)


def _train(
    selection: Selection,
    fingerprint: str,
    set_options: SetOptions,
    options: TrainOptions,
    tuned: dict[str, TuneReport],
) -> tuple[TrainReport, ...]:
    with ExitStack() as stages:
        for head in options.heads:
            stages.enter_context(progress.stage(f"train {head}"))
        # Versions have the order of the heads, whichever is trained first.
        futures = submit_in_turn(
            train_head,
            [
                {
                    "head": head,
                    "selection": selection,
                    "fingerprint": fingerprint,
                    "set_options": set_options,
                    "options": options,
                    "tuned": tuned.get(head),
                }
                for head in options.heads
            ],
        )
        return tuple(future.result() for future in futures)
