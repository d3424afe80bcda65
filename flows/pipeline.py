"""Flow `pipeline`: collect, embed, train, promote."""

from __future__ import annotations

from prefect import flow

from coinml.data.records import Target
from coinml.data.targets import examples
from coinml.embedding_sets.options import USUAL, SetOptions
from coinml.heads.kinds import DEFAULT_HEADS
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from flows.collect import collect
from flows.embed import embed
from flows.promote import promote
from flows.train import train
from tasks.events import ours
from tasks.outcomes import completed
from tasks.summaries import PipelineSummary
from tasks.watching import rename_run


@flow(name="pipeline", flow_run_name="pipeline {selection.title}")
def pipeline(
    selection: Selection,
    source: str | None = None,
    budget: int | None = None,
    batch_size: int = 20,
    max_wait_s: float = 60.0,
    set_options: SetOptions = USUAL,
    decoder: str = "auto",
    heads: tuple[str, ...] = DEFAULT_HEADS,
    target: Target = "task",
    seed: int = 0,
    by_reference: bool = False,
    drop_leaks: bool = False,
) -> PipelineSummary:
    """The whole way from a list of videos to a champion; done before is not done again.

    A collection that is done in part is no reason to wait: what is here is used, and the
    summary says that more is due.

    Args:
        selection: Which videos.
        source: URL template with `{id}`; YouTube, and for `mini` a host of its own.
        budget: Download at most so many videos in this run.
        batch_size: Videos a download task.
        max_wait_s: A longer pause of the source ends the collection.
        set_options: How videos become vectors, which names the set.
        decoder: `auto`, `pyav`, `decord` or `torchcodec`.
        heads: Of `coinml.heads.kinds.HEADS`.
        target: "task", "domain" or "step".
        seed: Of everything random in training.
        by_reference: The registered model names its encoder on the hub instead of carrying it.
        drop_leaks: Train without the videos that are on a later side of the split as well.

    Raises:
        InvalidInputError: The annotations do not have what the target asks for.
    """
    set_options = set_options.for_target(target)
    # Said before hours of collection, not after them.
    examples(selection.load(Settings().data_dir).videos, target=target)
    with ours():
        collected = collect(
            selection, source=source, budget=budget, batch_size=batch_size, max_wait_s=max_wait_s
        )
        embedded = embed(selection, set_options, decoder=decoder)
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
    summary = PipelineSummary(
        collected=collected, embedded=embedded, trained=trained, verdicts=tuple(verdicts)
    )
    name = f"pipeline {selection.title}"
    rename_run(name, f"{name} {collected.downloaded}/{collected.total}, {trained.scores}")
    return completed(summary, message=summary.outcome)
