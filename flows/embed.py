"""Flow `embed`: turn the videos that are here into vectors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prefect import flow
from prefect.futures import PrefectFuture, wait

from coinml.data.targets import extent_of, require_spans
from coinml.embedding.jobs import count_done, key_of, plan_jobs
from coinml.embedding.report import EmbedReport
from coinml.embedding.shards import SHARDS_IN_HAND, Embedder, Shard, ThisProcess, deal
from coinml.embedding_sets.options import USUAL, SetOptions
from coinml.errors import InvalidInputError
from coinml.ledger import DOWNLOADED, Ledger
from coinml.runtime import progress
from coinml.runtime.devices import find_devices
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from tasks.embedding import embed_shard, open_set
from tasks.events import announce_embedded
from tasks.limits import devices_for_us
from tasks.outcomes import completed
from tasks.summaries import EmbedSummary
from tasks.threads import threads
from tasks.watching import progress_shown, rename_run


@flow(
    name="embed",
    flow_run_name="embed {selection.title}",
    # A thread does no more than wait for the process that embeds its shard.
    task_runner=threads(SHARDS_IN_HAND),
)
def embed(
    selection: Selection,
    set_options: SetOptions = USUAL,
    decoder: str = "auto",
    shard_size: int | None = None,
    runner: str = "local",
    address: str | None = None,
    devices: str | None = None,
    deadline_s: float = 60.0,
) -> EmbedSummary:
    """Embed what of a selection is here and not yet in the set.

    A file that does not decode is quarantined in the ledger and does not stop the rest. A segment
    that lies behind the end of its file is named in the summary, and the file is not blamed. Who
    waits for the set to grow is told by the event `coinml.embedded`, if it has.

    Args:
        selection: Which videos.
        set_options: How they become vectors, which names the set.
        decoder: `auto`, `pyav`, `decord` or `torchcodec`.
        shard_size: Videos (or segments) a task; by default as fits the number of processes.
        runner: `local` for this machine's devices, `dask` for a cluster's workers.
        address: The cluster's scheduler, such as `tcp://10.0.0.5:8786`.
        devices: A process for each, such as `cuda:0,cuda:1`; by default what COINML_DEVICE
            says, where `auto` means every GPU.
        deadline_s: Seconds that decoding one video may take.

    Raises:
        InvalidInputError: Options that do not go together, or a device that is not here; the
            set is of annotated extents, and nothing is annotated.
        LocalError: This machine or the cluster is at fault; no video is blamed.
    """
    settings = Settings()
    _check(runner, address, devices)
    dataset = selection.load(settings.data_dir)
    options = set_options.resolved(mini=selection.is_mini)
    extent = extent_of(None, options.extent)
    without_extent = require_spans(dataset.videos, extent)
    embedding_set = open_set(dataset.name, options)
    reports: list[EmbedReport] = []
    errors: list[BaseException] = []
    workers, started = 0, time.perf_counter()
    with Ledger(settings.ledger_url) as ledger:
        jobs = plan_jobs(dataset.videos, ledger.rows(dataset.name, state=DOWNLOADED), extent)
        done = embedding_set.done(set_aside=True)
        todo = [job for job in jobs if key_of(job) not in done]
        if todo:
            with (
                progress_shown(dataset.name),
                progress.stage("embed", len(todo)),
                _embedder(settings, runner=runner, address=address, devices=devices) as embedder,
            ):
                workers = embedder.workers
                shards = [
                    Shard(
                        jobs=tuple(some),
                        dataset=dataset.name,
                        fingerprint=embedding_set.spec.fingerprint,
                        embeddings_root=settings.embeddings_root,
                        set_options=options,
                        decoder=decoder,
                        deadline_s=deadline_s,
                    )
                    for some in deal(todo, workers=workers, size=shard_size)
                ]
                reports, errors = _embed(shards, embedder)
        failed = {key: why for report in reports for key, why in report.failed.items()}
        for video_id in {key for report in reports for key in report.broken}:
            ledger.quarantine(dataset.name, video_id, failed[video_id])
    if errors:
        raise errors[0]
    # Asked of the set itself: of a video whose one segment fails, the others are there.
    counts = count_done(jobs, embedding_set.done() if todo else done)
    summary = EmbedSummary.of(
        reports,
        dataset=dataset.name,
        fingerprint=embedding_set.spec.fingerprint,
        videos=len(counts),
        workers=workers,
        seconds=time.perf_counter() - started,
        segments=sum(counts.values()) if extent == "segments" else None,
        without_extent=len(without_extent),
    )
    announce_embedded(selection, summary, set_options)
    name = f"embed {selection.title}"
    rename_run(name, f"{name} +{summary.embedded}")
    return completed(summary, message=str(summary))


def _check(runner: str, address: str | None, devices: str | None) -> None:
    """Refuse what cannot be meant, before anything is done."""
    if runner not in ("local", "dask"):
        raise InvalidInputError(f"--runner {runner}: of local, dask")
    if runner == "dask" and not address:
        raise InvalidInputError(
            "--runner dask needs the --address of a scheduler; the GPUs of this machine are all "
            "used without a runner"
        )
    if runner != "dask" and address:
        raise InvalidInputError(f"--address {address} is for --runner dask")
    if runner == "dask" and devices:
        raise InvalidInputError("--devices are this machine's; the cluster's are its workers'")


@contextmanager
def _embedder(
    settings: Settings, *, runner: str, address: str | None, devices: str | None
) -> Iterator[Embedder]:
    """Who embeds: this process, one a device of this machine, or a cluster's workers."""
    if runner == "dask" and address:
        from coinml.embedding.dask_cluster import connect

        with connect(address) as cluster:
            yield cluster
        return
    places = find_devices(devices or settings.device)
    with devices_for_us(settings.data_dir / "locks", places):
        if len(places) == 1:
            with ThisProcess(places[0]) as here:
                yield here
            return
        from coinml.embedding.dask_cluster import local_cluster

        with local_cluster(places) as cluster:
            yield cluster


def _embed(
    shards: Sequence[Shard], embedder: Embedder
) -> tuple[list[EmbedReport], list[BaseException]]:
    """Have the shards embedded; one that fails stops no other.

    Returns:
        The reports, and why there are none of the other shards.
    """
    room = threading.BoundedSemaphore(embedder.in_hand)
    futures: list[PrefectFuture[EmbedReport]] = []
    try:
        for number, shard in enumerate(shards, start=1):
            room.acquire()
            future = embed_shard.submit(
                shard,
                embedder,
                number=f"{number}/{len(shards)}",
                progress=progress.counter("embed"),
            )
            future.add_done_callback(lambda _: room.release())
            futures.append(future)
    finally:
        # Ctrl-C too ends only when every process has written what it had.
        wait(futures)
    ends: list[EmbedReport | BaseException] = [
        future.result(raise_on_failure=False) for future in futures
    ]
    errors = [end for end in ends if isinstance(end, BaseException)]
    return [end for end in ends if not isinstance(end, BaseException)], errors
