"""Flow `reprocess`: what is due, what changed on disk, what the set lacks; retrain on growth."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import flow

from coinml.collection.download import MAX_HEIGHT
from coinml.data.records import Target
from coinml.data.targets import examples
from coinml.embedding_sets.options import USUAL, SetOptions
from coinml.heads.kinds import DEFAULT_HEADS
from coinml.registry.promotion import GateVerdict
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from flows.collect import collect
from flows.embed import embed
from flows.promote import promote
from flows.train import train
from tasks.download import recheck_files
from tasks.events import ours
from tasks.outcomes import completed
from tasks.summaries import ReprocessSummary, TrainSummary
from tasks.training import count_trained
from tasks.watching import rename_run


@flow(name="reprocess", flow_run_name="reprocess {selection.title}")
def reprocess(
    selection: Selection,
    source: str | None = None,
    budget: int | None = None,
    batch_size: int = 20,
    max_wait_s: float = 60.0,
    max_height: int = MAX_HEIGHT,
    deep: bool = False,
    set_options: SetOptions = USUAL,
    decoder: str = "auto",
    heads: tuple[str, ...] = DEFAULT_HEADS,
    target: Target = "task",
    min_new: int = 50,
    seed: int = 0,
    by_reference: bool = False,
    drop_leaks: bool = False,
) -> ReprocessSummary:
    """Bring a dataset up to date, and do nothing where nothing changed.

    Files that are gone or altered are noticed first, so that the same run fetches them again.

    Args:
        selection: Which videos.
        source: URL template with `{id}`; YouTube, and for `mini` a host of its own.
        budget: Download at most so many videos in this run.
        batch_size: Videos a download task.
        max_wait_s: A longer pause of the source ends the collection.
        max_height: Rows of the picture at most.
        deep: Read every file, instead of those whose size or time of change is another.
        set_options: How videos become vectors, which names the set.
        decoder: `auto`, `pyav`, `decord` or `torchcodec`.
        heads: Of `coinml.heads.kinds.HEADS`.
        target: "task", "domain" or "step".
        min_new: Train again, and ask the gate, when the set has so many videos more than the
            heads were last trained on.
        seed: Of everything random in training.
        by_reference: The registered model names its encoder on the hub instead of carrying it.
        drop_leaks: Train without the videos that are on a later side of the split as well.

    Raises:
        InvalidInputError: The annotations do not have what the target asks for.
    """
    set_options = set_options.for_target(target)
    examples(selection.load(Settings().data_dir).videos, target=target)
    with ours():
        rechecked = recheck_files(selection, deep)
        collected = collect(
            selection,
            source=source,
            budget=budget,
            batch_size=batch_size,
            max_wait_s=max_wait_s,
            max_height=max_height,
        )
        embedded = embed(selection, set_options, decoder=decoder)
        grown = embedded.videos - count_trained(
            embedded.dataset, embedded.fingerprint, heads, target
        )
        trained: TrainSummary | None = None
        verdicts: Sequence[GateVerdict] = ()
        if grown >= min_new:
            trained = train(
                selection,
                heads=heads,
                set_options=set_options,
                target=target,
                seed=seed,
                by_reference=by_reference,
                drop_leaks=drop_leaks,
            )
            verdicts = promote(trained.heads[0].model, [report.version for report in trained.heads])
    summary = ReprocessSummary(
        missing=rechecked.missing,
        altered=rechecked.altered,
        collected=collected,
        embedded=embedded,
        grown=max(0, grown),
        trained=trained,
        verdicts=tuple(verdicts),
    )
    name = f"reprocess {selection.title}"
    rename_run(name, f"{name} {collected.yielded}, grown by {summary.grown}")
    return completed(summary, message=summary.outcome)
