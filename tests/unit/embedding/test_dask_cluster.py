"""Embedding on a Dask cluster whose workers are threads of this process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from distributed import LocalCluster

from coinml.embedding import dask_cluster
from coinml.embedding.dask_cluster import connect
from coinml.embedding.jobs import EmbedJob
from coinml.embedding.shards import Shard
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.options import SetOptions
from coinml.errors import InvalidInputError, LocalError
from coinml.runtime.progress import StoppedError


def local_cluster(workers: int = 1) -> LocalCluster:
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address=":0",
    )


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with local_cluster() as local:
        yield local.scheduler_address


@pytest.fixture
def shard(tmp_path: Path, make_video: Callable[..., Path], tiny_encoder_dir: Path) -> Shard:
    """Twelve videos that are not yet in the set."""
    jobs = []
    for number in range(12):
        path = make_video(tmp_path / f"{number}.mp4", seconds=0.8, seed=number)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        jobs.append(EmbedJob(video_id=str(number), path=str(path), file_sha256=sha256))
    options = SetOptions(encoder=str(tiny_encoder_dir), clips=2, stride=1)
    root = str(tmp_path / "sets")
    made = EmbeddingSet.open(root, "toy", options.spec("toy"), create=True)
    return Shard(
        jobs=tuple(jobs),
        dataset="toy",
        fingerprint=made.spec.fingerprint,
        embeddings_root=root,
        set_options=options,
    )


def ids_in(shard: Shard) -> list[str]:
    found = EmbeddingSet.open(shard.embeddings_root, "toy", fingerprint=shard.fingerprint)
    return sorted(video_id for video_id, *_ in found.done())


def test_a_worker_embeds_a_shard_and_reports_progress(address: str, shard: Shard) -> None:
    reported = []
    with connect(address) as workers:
        assert workers.workers == 1
        report = workers.embed(shard, lambda done, total: reported.append((done, total)))
        again = workers.embed(shard)
    assert (report.embedded, report.failed) == (12, {})
    assert (again.embedded, again.skipped) == (0, 12)
    assert ids_in(shard) == sorted(job.video_id for job in shard.jobs)
    assert (reported[0], reported[-1]) == ((0, 12), (12, 12))


def test_a_stopped_shard_keeps_its_written_vectors(address: str, shard: Shard) -> None:
    def stop_later(done: int, _total: int) -> None:
        if done:
            raise StoppedError("enough")

    half = replace(shard, jobs=shard.jobs[:6])
    with connect(address) as workers:
        workers.embed(half)
        with pytest.raises(StoppedError, match="enough"):
            workers.embed(shard, stop_later)
        kept = ids_in(shard)
        assert set(kept) >= {job.video_id for job in half.jobs}
        report = workers.embed(shard)
    assert (report.skipped, report.embedded) == (len(kept), 12 - len(kept))
    assert len(ids_in(shard)) == 12


def test_an_error_on_a_worker_names_the_worker(address: str, shard: Shard) -> None:
    for job in shard.jobs:
        Path(job.path).unlink()
    with connect(address) as workers, pytest.raises(LocalError, match=r"Dask worker tcp://.* on "):
        workers.embed(shard)


def test_an_unreachable_scheduler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "CONNECT_S", 0.5)
    with (
        pytest.raises(LocalError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1 "),
        connect("tcp://127.0.0.1:1"),
    ):
        pass
    with (
        pytest.raises(InvalidInputError, match="expected tcp://HOST:PORT"),
        connect("nonsense://x"),
    ):
        pass


def test_a_cluster_without_workers_is_an_error(
    monkeypatch: pytest.MonkeyPatch, shard: Shard
) -> None:
    monkeypatch.setattr(dask_cluster, "FIRST_WORKER_S", 0.5)
    empty = local_cluster(workers=0)
    with empty, pytest.raises(LocalError, match="has no workers"), connect(empty.scheduler_address):
        pass


def test_a_cluster_that_disappears_is_an_error(shard: Shard) -> None:
    local = local_cluster()

    def close(_done: int, _total: int) -> None:
        local.close()

    with connect(local.scheduler_address) as workers, pytest.raises(LocalError, match="is gone"):
        workers.embed(shard, close)
