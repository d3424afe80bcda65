"""Flow `pipeline`: collect, embed, train, promote."""

from __future__ import annotations

from prefect import flow

from coinml.collection.options import CollectOptions
from coinml.data.targets import examples
from coinml.embedding.options import EmbedOptions
from coinml.embedding_sets.options import SetOptions
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml.training.options import TrainOptions
from coinml.training.train_head import model_name
from flows.collect import collect
from flows.embed import embed
from flows.promote import promote
from flows.train import train
from tasks.alerts import announcing_failures
from tasks.events import tagged
from tasks.outcomes import completed
from tasks.reporting import log_results
from tasks.stages import logged
from tasks.summaries import PipelineSummary
from tasks.training import check_tracking
from tasks.watching import rename_run


@announcing_failures
@flow(name="pipeline", flow_run_name="pipeline {selection.title}")
def pipeline(
    selection: Selection,
    collection: CollectOptions = CollectOptions(),
    set_options: SetOptions = SetOptions(),
    embedding: EmbedOptions = EmbedOptions(),
    training: TrainOptions = TrainOptions(),
) -> PipelineSummary:
    """From a list of videos to a champion; steps that were done before are not repeated.

    An incomplete collection does not stop the rest: the downloaded videos are used, and the
    summary says that more are due.

    Args:
        selection: Which videos.
        collection: Which of them are downloaded in this run, and how.
        set_options: How they become vectors; identifies the embedding set.
        embedding: By which decoder and on which devices.
        training: Which heads, on which classes.

    Raises:
        InvalidInputError: The annotations lack what the target needs.
        LocalError: Runs cannot be recorded in MLflow.
    """
    target = training.target_for(set_options)
    set_options = set_options.for_target(target)
    # Checked before hours of collection, not after them.
    dataset = selection.load(Settings().data_dir)
    examples(dataset.videos, target=target)
    check_tracking(model_name(dataset.name, target))
    with tagged():
        collected = logged("collect", collect, selection, collection)
        embedded = logged("embed", embed, selection, set_options, embedding)
        trained = logged("train", train, selection, set_options, training)
        versions = [report.version for report in trained.heads]
        verdicts = logged("promote", promote, trained.heads[0].model, versions)
    summary = PipelineSummary(
        collected=collected, embedded=embedded, trained=trained, verdicts=tuple(verdicts)
    )
    log_results(trained, dataset=dataset.name)
    name = f"pipeline {selection.title}"
    rename_run(name, f"{name} {collected.downloaded}/{collected.total}, {trained.scores}")
    return completed(summary, message=summary.outcome)
