"""Flow `reprocess`: bring a dataset up to date, and train again if it has grown."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import flow

from coinml.collection.options import CollectOptions
from coinml.data.targets import examples
from coinml.embedding.options import EmbedOptions
from coinml.embedding_sets.options import SetOptions
from coinml.registry.promotion import GateVerdict
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml.training.options import TrainOptions
from coinml.training.train_head import model_name
from flows.collect import collect
from flows.embed import embed
from flows.promote import promote
from flows.train import train
from tasks.alerts import announcing_failures
from tasks.download import recheck_files
from tasks.events import tagged
from tasks.outcomes import completed
from tasks.reporting import log_results
from tasks.stages import logged
from tasks.summaries import ReprocessSummary, TrainSummary
from tasks.training import check_tracking, count_trained
from tasks.watching import rename_run


@announcing_failures
@flow(name="reprocess", flow_run_name="reprocess {selection.title}")
def reprocess(
    selection: Selection,
    collection: CollectOptions = CollectOptions(),
    set_options: SetOptions = SetOptions(),
    embedding: EmbedOptions = EmbedOptions(),
    training: TrainOptions = TrainOptions(),
    deep: bool = False,
    min_new: int = 50,
) -> ReprocessSummary:
    """Bring a dataset up to date; nothing is done where nothing has changed.

    Missing and altered files are found first, so that the same run downloads them again.

    Args:
        selection: Which videos.
        collection: Which of them are downloaded in this run, and how.
        set_options: How they become vectors; identifies the embedding set.
        embedding: By which decoder and on which devices.
        training: Which heads, on which classes.
        deep: Read every file, not only those whose size or modification time has changed.
        min_new: Train again and ask the gate when the set has this many videos more than the
            heads were last trained on.

    Raises:
        InvalidInputError: The annotations lack what the target needs.
        LocalError: Runs cannot be recorded in MLflow.
    """
    target = training.target_for(set_options)
    set_options = set_options.for_target(target)
    dataset = selection.load(Settings().data_dir)
    examples(dataset.videos, target=target)
    check_tracking(model_name(dataset.name, target))
    with tagged():
        rechecked = logged("recheck", recheck_files, dataset.name, deep)
        collected = logged("collect", collect, selection, collection)
        embedded = logged("embed", embed, selection, set_options, embedding)
        known = count_trained(dataset.name, embedded.fingerprint, training.heads, target)
        grown = embedded.videos - known
        trained: TrainSummary | None = None
        verdicts: Sequence[GateVerdict] = ()
        if grown >= min_new:
            trained = logged("train", train, selection, set_options, training)
            versions = [report.version for report in trained.heads]
            verdicts = logged("promote", promote, trained.heads[0].model, versions)
    summary = ReprocessSummary(
        missing=rechecked.missing,
        altered=rechecked.altered,
        collected=collected,
        embedded=embedded,
        grown=max(0, grown),
        trained=trained,
        verdicts=tuple(verdicts),
    )
    log_results(trained, dataset=dataset.name)
    name = f"reprocess {selection.title}"
    rename_run(name, f"{name} {collected.yielded}, grown by {summary.grown}")
    return completed(summary, message=summary.outcome, idle=summary.idle)
