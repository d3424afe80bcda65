"""Flow `embed`: turn the videos that are here into vectors."""

from __future__ import annotations

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import Completed, State
from prefect.task_runners import ThreadPoolTaskRunner

from coinml import progress
from coinml.embed_jobs import count_done, key_of, plan_jobs
from coinml.ledger import DOWNLOADED, Ledger
from coinml.reports import EmbedSummary
from coinml.selection import Selection
from coinml.set_options import USUAL, SetOptions
from coinml.settings import Settings
from coinml.targets import extent_of, require_spans
from tasks.embedding import embed_shard, open_set
from tasks.policies import GPU_TAG


@flow(
    name="embed",
    flow_run_name="embed {selection.dataset}",
    # One shard at a time: an encoder fills its device, and a second would only wait for it.
    task_runner=ThreadPoolTaskRunner(max_workers=1),
)
def embed(
    selection: Selection,
    set_options: SetOptions = USUAL,
    decoder: str = "auto",
    shard_size: int = 512,
) -> State[EmbedSummary]:
    """Embed what of a selection is here and not yet in the set.

    A file that does not decode is quarantined in the ledger and does not stop the rest. A segment
    that lies behind the end of its file is named in the summary, and the file is not blamed.

    Args:
        selection: Which videos.
        set_options: How they become vectors, which names the set.
        decoder: `auto`, `pyav`, `decord` or `torchcodec`.
        shard_size: Videos (or segments) a task.

    Raises:
        InvalidInputError: The set is of annotated extents, and nothing is annotated.
    """
    settings = Settings()
    dataset = selection.load(settings.data_dir)
    options = set_options.resolved(mini=selection.is_mini)
    extent = extent_of(None, options.extent)
    without_extent = require_spans(dataset.videos, extent)
    embedding_set = open_set(dataset.name, options)
    _limit_devices()
    with Ledger(settings.ledger_url) as ledger:
        jobs = plan_jobs(dataset.videos, ledger.rows(dataset.name, state=DOWNLOADED), extent)
        done = embedding_set.done(set_aside=True)
        todo = [job for job in jobs if key_of(job) not in done]
        shards = [todo[start : start + shard_size] for start in range(0, len(todo), shard_size)]
        with progress.stage("embed", len(todo)):
            futures = [
                embed_shard.submit(
                    dataset.name,
                    embedding_set.spec.fingerprint,
                    shard,
                    options,
                    shard=f"{number}/{len(shards)}",
                    decoder=decoder,
                )
                for number, shard in enumerate(shards, start=1)
            ]
            reports = [future.result() for future in futures]
        failed = {key: why for report in reports for key, why in report.failed.items()}
        for video_id in [key for report in reports for key in report.broken]:
            ledger.quarantine(dataset.name, video_id, failed[video_id])
    # Asked of the set itself: of a video whose one segment fails, the others are there.
    counts = count_done(jobs, embedding_set.done() if todo else done)
    summary = EmbedSummary(
        dataset=dataset.name,
        fingerprint=embedding_set.spec.fingerprint,
        videos=len(counts),
        embedded=sum(report.embedded for report in reports),
        failed=failed,
        seconds=sum(report.seconds for report in reports),
        decode_wait_s=sum(report.decode_wait_s for report in reports),
        encode_s=sum(report.encode_s for report in reports),
        write_s=sum(report.write_s for report in reports),
        bottleneck=max(reports, key=lambda report: report.seconds).bottleneck if reports else "",
        segments=sum(counts.values()) if extent == "segments" else None,
        without_extent=len(without_extent),
    )
    return Completed(message=str(summary), data=summary)


def _limit_devices() -> None:
    """Let one task at a time use this server's `gpu` tag, unless someone set another limit.

    It holds across processes, where the task runner's single thread does not.
    """
    with get_client(sync_client=True) as client:
        if not any(limit.tag == GPU_TAG for limit in client.read_concurrency_limits(50, 0)):
            client.create_concurrency_limit(tag=GPU_TAG, concurrency_limit=1)
