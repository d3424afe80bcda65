"""The engine loses no vector, computes none twice, and is stopped by no video."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coinml import media
from coinml.embedding.engine import embed
from coinml.embedding.jobs import EmbedJob
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.spec import SetSpec
from coinml.encoder.clip_encoder import ClipEncoder, load_encoder
from coinml.encoder.sampling import Sampling
from coinml.errors import InvalidInputError, LocalError


@pytest.fixture(scope="module")
def encoder(tiny_encoder_dir: Path) -> ClipEncoder:
    return load_encoder(tiny_encoder_dir, device="cpu", sampling=Sampling(clips=3, stride=2))


@pytest.fixture(scope="module")
def videos(
    tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]
) -> list[EmbedJob]:
    folder = tmp_path_factory.mktemp("videos")
    return [
        job_of(make_video(folder / f"video{seed}.mp4", seconds=1 + seed / 10, seed=seed))
        for seed in range(10)
    ]


def job_of(path: Path) -> EmbedJob:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "0" * 64
    return EmbedJob(video_id=path.stem, path=str(path), file_sha256=sha256)


def new_set(folder: Path, encoder: ClipEncoder) -> EmbeddingSet:
    spec = SetSpec(encoder=encoder.spec, dataset="mini")
    return EmbeddingSet.open(str(folder), "mini", spec, create=True)


def matrix(embeddings: EmbeddingSet) -> np.ndarray:
    return embeddings.videos().filter(regex=r"^e\d").to_numpy()


def test_vectors_are_those_of_the_encoder_on_the_sampled_clips(
    tmp_path: Path, encoder: ClipEncoder, videos: list[EmbedJob]
) -> None:
    embeddings = new_set(tmp_path, encoder)
    report = embed(videos, encoder, embeddings, workers=2)
    assert (report.embedded, report.skipped, report.clips) == (10, 0, 30)
    assert report.failed == {}
    assert report.bottleneck in ("decode", "encode", "write")
    assert 0 < report.decode_wait_s + report.encode_s + report.write_s <= report.seconds * 1.01
    table = embeddings.clips().to_pandas()
    assert len(table) == 30
    for job in videos:
        rows = table[table["video_id"] == job.video_id]
        clips = media.sample(job.path, encoder.clip_spec())
        assert rows["clip"].tolist() == [0, 1, 2]
        np.testing.assert_array_equal(np.stack(rows["timestamps_s"]), clips.timestamps_s)
        expected = encoder.encode(clips.frames)
        found = np.stack(rows["embedding"]).astype(np.float32)
        np.testing.assert_allclose(found, expected, atol=2e-3)
        assert set(rows["file_sha256"]) == {job.file_sha256}
        assert set(rows["decoder"]) == {"pyav"}
        assert set(rows["dtype"]) == {"float32"}


def test_batch_size_and_workers_change_vectors_by_rounding_only(
    tmp_path: Path, encoder: ClipEncoder, videos: list[EmbedJob]
) -> None:
    reference = new_set(tmp_path / "reference", encoder)
    embed(videos, encoder, reference, workers=1, batch_clips=1)
    for workers, batch_clips, part_videos in ((1, 7, 1), (3, 64, 4), (2, 2, 100)):
        other = new_set(tmp_path / f"{workers}-{batch_clips}", encoder)
        embed(
            list(reversed(videos)),
            encoder,
            other,
            workers=workers,
            batch_clips=batch_clips,
            part_videos=part_videos,
        )
        assert_same(other, reference)
    resumed = new_set(tmp_path / "resumed", encoder)
    for some in (videos[7:], videos[2:5], videos):
        embed(some, encoder, resumed, workers=2, batch_clips=5)
    assert_same(resumed, reference)


def assert_same(found: EmbeddingSet, reference: EmbeddingSet) -> None:
    """The same ids, extents and timestamps, and the same vectors up to rounding."""
    keys = ["video_id", "file_sha256", "start_s", "end_s", "clip", "timestamps_s", "frames_decoded"]
    assert found.clips(keys).equals(reference.clips(keys))
    ours, theirs = (
        np.stack(table.clips(["embedding"]).to_pandas()["embedding"]).astype(np.float32)
        for table in (found, reference)
    )
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    assert ((ours * theirs).sum(axis=1) / lengths).min() > 0.9999


def test_a_second_run_embeds_only_changed_files(
    tmp_path: Path, encoder: ClipEncoder, videos: list[EmbedJob]
) -> None:
    embeddings = new_set(tmp_path, encoder)
    assert embed(videos[:6], encoder, embeddings).embedded == 6
    again = embed(videos, encoder, embeddings)
    assert (again.embedded, again.skipped) == (4, 6)
    nothing = embed([*videos, videos[0]], encoder, embeddings)
    assert (nothing.embedded, nothing.skipped, nothing.bottleneck) == (0, 10, "none")
    changed = replace(videos[0], path=videos[1].path, file_sha256=videos[1].file_sha256)
    assert embed([changed], encoder, embeddings).embedded == 1
    found = embeddings.videos().set_index("video_id")
    assert len(found) == 10
    assert found.loc["video0", "file_sha256"] == videos[1].file_sha256


def test_equal_clips_of_a_short_video_are_encoded_once(
    tmp_path: Path,
    encoder: ClipEncoder,
    make_video: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = job_of(make_video(tmp_path / "short.mp4", seconds=0.5))
    long = job_of(make_video(tmp_path / "long.mp4", seconds=4))
    sizes: list[int] = []
    encode = ClipEncoder.encode_prepared

    def counting(self: ClipEncoder, clips: list[object], **options: int) -> np.ndarray:
        sizes.append(len(clips))
        return encode(self, clips, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ClipEncoder, "encode_prepared", counting)
    embeddings = new_set(tmp_path / "sets", encoder)
    assert embed([short, long], encoder, embeddings).clips == 6
    assert sum(sizes) == 4
    table = embeddings.clips().to_pandas()
    vectors = np.stack(table[table["video_id"] == "short"]["embedding"])
    assert len(vectors) == 3
    assert (vectors == vectors[0]).all()


def test_extents_of_a_video_are_embedded_separately(
    tmp_path: Path, encoder: ClipEncoder, videos: list[EmbedJob]
) -> None:
    embeddings = new_set(tmp_path, encoder)
    job = videos[9]
    extents = [replace(job, start_s=0.0, end_s=0.8), replace(job, start_s=0.9, end_s=1.8)]
    assert embed(extents, encoder, embeddings).embedded == 2
    table = embeddings.clips().to_pandas()
    assert table.groupby("start_s")["timestamps_s"].first().map(max).tolist()[0] < 0.8
    beyond = embed([replace(job, start_s=5.0, end_s=6.0)], encoder, embeddings)
    assert "no frame lies" in beyond.failed[job.video_id]
    assert beyond.broken == ()


def test_no_file_stops_the_run(
    tmp_path: Path, encoder: ClipEncoder, videos: list[EmbedJob]
) -> None:
    os.mkfifo(tmp_path / "hanging.mp4")
    # From a pipe that is open for writing, no byte comes.
    silent = os.open(tmp_path / "hanging.mp4", os.O_RDWR)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "junk.mp4").write_bytes(os.urandom(5000))
    whole = Path(videos[0].path).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    bad = [job_of(tmp_path / f"{name}.mp4") for name in ("hanging", "empty", "junk", "cut")]
    jobs = [bad[0], *videos[:3], *bad[1:], *videos[3:], job_of(tmp_path / "missing.mp4")]
    embeddings = new_set(tmp_path, encoder)
    seen: list[tuple[int, int]] = []
    report = embed(
        jobs,
        encoder,
        embeddings,
        workers=2,
        deadline_s=1.5,
        progress=lambda done, total: seen.append((done, total)),
    )
    os.close(silent)
    assert report.embedded == 10
    assert set(report.failed) == {"hanging", "empty", "junk", "cut", "missing"}
    assert set(report.broken) == {"hanging", "empty", "junk", "cut"}
    assert "within 1.5 s" in report.failed["hanging"]
    assert len(embeddings.videos()) == 10
    assert seen[0] == (0, 15)
    assert seen[-1] == (15, 15)
    assert seen == sorted(seen)


def test_a_killed_decoding_process_loses_no_video(
    tmp_path: Path, encoder: ClipEncoder, videos: list[EmbedJob]
) -> None:
    killed = 0

    def kill_one(done: int, _: int) -> None:
        nonlocal killed
        if killed < 2 and done >= (1, 3)[killed] and pool.pids:
            os.kill(pool.pids[0], signal.SIGKILL)
            killed += 1

    embeddings = new_set(tmp_path, encoder)
    with media.DecodePool(workers=2) as pool:
        report = embed(
            videos, encoder, embeddings, pool=pool, batch_clips=3, part_videos=1, progress=kill_one
        )
    assert killed == 2
    assert report.embedded == 10
    assert report.failed == {}
    assert len(embeddings.videos()) == 10


def test_an_interrupted_run_writes_the_encoded_vectors(
    tmp_path: Path, encoder: ClipEncoder, videos: list[EmbedJob]
) -> None:
    embeddings = new_set(tmp_path, encoder)

    class _Interruption(KeyboardInterrupt):
        pass

    def interrupt(done: int, _: int) -> None:
        if done >= 4:
            raise _Interruption

    with pytest.raises(_Interruption):
        embed(videos, encoder, embeddings, batch_clips=3, part_videos=1, progress=interrupt)
    assert 4 <= len(embeddings.videos()) < 10
    report = embed(videos, encoder, embeddings)
    assert report.embedded + report.skipped == 10


def test_a_set_that_cannot_be_written_stops_the_run(
    tmp_path: Path, encoder: ClipEncoder, videos: list[EmbedJob]
) -> None:
    embeddings = new_set(tmp_path, encoder)
    shutil.rmtree(embeddings.path)
    with pytest.raises(LocalError, match="part-"):
        embed(videos, encoder, embeddings)


def test_another_encoder_is_refused(
    tmp_path: Path, encoder: ClipEncoder, videos: list[EmbedJob], tiny_encoder_dir: Path
) -> None:
    embeddings = new_set(tmp_path, encoder)
    other = load_encoder(tiny_encoder_dir, sampling=Sampling(clips=4))
    with pytest.raises(InvalidInputError, match=other.spec.fingerprint):
        embed(videos, other, embeddings)


def test_the_videos_of_a_damaged_part_are_embedded_again(
    tmp_path: Path, encoder: ClipEncoder, videos: list[EmbedJob]
) -> None:
    embeddings = new_set(tmp_path, encoder)
    embed(videos, encoder, embeddings, batch_clips=3, part_videos=1)
    part = embeddings.parts()[0]
    lost = len(set(embeddings.read(part, ["video_id"]).column(0).to_pylist()))
    assert 0 < lost < 10
    Path(embeddings.path, part).write_bytes(b"")
    report = embed(videos, encoder, embeddings)
    assert (report.embedded, report.skipped) == (lost, 10 - lost)
    assert len(embeddings.videos()) == 10
