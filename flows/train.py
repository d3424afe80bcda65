"""Flow `train`: heads on an embedding set, each a run and a registered version."""

from __future__ import annotations

from contextlib import ExitStack

from prefect import flow

from coinml.data.records import Target
from coinml.data.targets import examples
from coinml.embedding_sets.options import USUAL, SetOptions
from coinml.heads.kinds import DEFAULT_HEADS, check_heads
from coinml.registry.promotion import GateVerdict
from coinml.runtime import progress
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml.training.sweep_runs import TuneReport
from flows.promote import promote
from tasks.embedding import open_set
from tasks.evaluation import compare_runs
from tasks.events import ours
from tasks.outcomes import completed
from tasks.reporting import report_training
from tasks.summaries import TrainSummary
from tasks.threads import threads
from tasks.training import count_embedded, count_trained, train_head, tune_head
from tasks.watching import progress_shown, rename_run


@flow(
    name="train",
    flow_run_name="train {selection.title}",
    task_runner=threads(2),
)
def train(
    selection: Selection,
    heads: tuple[str, ...] = DEFAULT_HEADS,
    set_options: SetOptions = USUAL,
    target: Target = "task",
    seed: int = 0,
    by_reference: bool = False,
    drop_leaks: bool = False,
    sweep: int = 0,
    min_new: int = 0,
    ask_gate: bool = False,
) -> TrainSummary:
    """Train heads on what is embedded, and compare the first two with a paired test.

    That too little is new is no failure: the outcome says so, and nothing is trained.

    Args:
        selection: Which videos.
        heads: Of `coinml.heads.kinds.HEADS`.
        set_options: How videos became vectors, which names the set.
        target: "task", "domain" or "step" (learnt on the set of segments).
        seed: Of everything random.
        by_reference: The registered model names its encoder on the hub instead of carrying it.
        drop_leaks: Train without the videos that are on a later side of the split as well.
        sweep: First try so many options of each head, and train it with those that val likes
            best; none by default.
        min_new: Only if the set has so many videos more than the heads were last trained on;
            0 trains in any case.
        ask_gate: Send the heads through the gate afterwards: who passes is the champion.

    Raises:
        InvalidInputError: An unknown head, too little data, or a target that the annotations do
            not have.
    """
    check_heads(heads)
    settings = Settings()
    dataset = selection.load(settings.data_dir)
    options = set_options.for_target(target).resolved(mini=selection.is_mini)
    examples(dataset.videos, target=target)
    embedding_set = open_set(dataset.name, options)
    grown = None
    if min_new:
        fingerprint = embedding_set.spec.fingerprint
        known = count_trained(dataset.name, fingerprint, heads, target)
        grown = count_embedded(selection, fingerprint) - known
        if grown < min_new:
            idle = TrainSummary(dataset=dataset.name, target=target, grown=grown, min_new=min_new)
            rename_run(f"train {selection.title}", f"train {selection.title} (nothing to train)")
            return completed(idle, message=str(idle))
    tuned: dict[str, TuneReport] = {}
    if sweep:
        tuned = _tune(
            heads,
            selection,
            embedding_set.spec.fingerprint,
            target=target,
            trials=sweep,
            seed=seed,
            drop_leaks=drop_leaks,
        )
    with ExitStack() as stages:
        stages.enter_context(progress_shown(dataset.name))
        for head in heads:
            stages.enter_context(progress.stage(f"train {head}"))
        futures = [
            train_head.submit(
                head,
                selection,
                embedding_set.spec.fingerprint,
                options,
                target=target,
                seed=seed,
                by_reference=by_reference,
                drop_leaks=drop_leaks,
                tuned=tuned.get(head),
            )
            for head in heads
        ]
        reports = tuple(future.result() for future in futures)
    comparison = compare_runs(reports[0].run_id, reports[1].run_id) if len(reports) > 1 else None
    verdicts: list[GateVerdict] = []
    if ask_gate:
        with ours():
            verdicts = promote(reports[0].model, [report.version for report in reports])
    summary = TrainSummary(
        dataset=dataset.name,
        target=target,
        heads=reports,
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
    heads: tuple[str, ...],
    selection: Selection,
    fingerprint: str,
    *,
    target: Target,
    trials: int,
    seed: int,
    drop_leaks: bool,
) -> dict[str, TuneReport]:
    """A sweep for each head; all of them end before any head sees the test videos."""
    with ExitStack() as stages:
        stages.enter_context(progress_shown(selection.title))
        for head in heads:
            stages.enter_context(progress.stage(f"sweep {head}", trials))
        futures = {
            head: tune_head.submit(
                head,
                selection,
                fingerprint,
                target=target,
                trials=trials,
                seed=seed,
                drop_leaks=drop_leaks,
            )
            for head in heads
        }
        return {head: future.result() for head, future in futures.items()}
