"""An embedding run that is killed repeatedly has the same result as an undisturbed one."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from coinml.collection.adopt import adopt_folder
from coinml.embedding.engine import embed
from coinml.embedding.jobs import EmbedJob
from coinml.embedding_sets import EmbeddingSet, find_set
from coinml.embedding_sets.spec import SetSpec
from coinml.encoder.clip_encoder import load_encoder
from coinml.encoder.sampling import Sampling
from coinml.ledger import Ledger
from coinml.selection import Selection

pytestmark = pytest.mark.stack

COMMAND = str(Path(sys.executable).parent / "coinml")
KEYS = ["video_id", "file_sha256", "start_s", "end_s", "clip", "timestamps_s"]

# Logs the encoded videos, so that the parent process can detect repeated work.
ENCODE_AND_TELL = """
import os, sys
from pathlib import Path
from coinml.embedding.engine import embed
from coinml.embedding.jobs import EmbedJob
from coinml.encoder.clip_encoder import load_encoder
from coinml.encoder.sampling import Sampling
from coinml.embedding.part_writer import PartWriter
from coinml.embedding_sets.spec import SetSpec
from coinml.embedding_sets import EmbeddingSet
encoder_dir, videos, sets, told = sys.argv[1:]
file = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
add = PartWriter.add
def add_and_tell(self, video):
    os.write(file, (video.video_id + "\\n").encode())
    add(self, video)
PartWriter.add = add_and_tell
encoder = load_encoder(encoder_dir, device="cpu", sampling=Sampling(clips=3, stride=2))
spec = SetSpec(encoder=encoder.spec, dataset="mini")
jobs = [
    EmbedJob(video_id=path.stem, path=str(path), file_sha256=path.stem)
    for path in sorted(Path(videos).iterdir())
]
print("ready", flush=True)
embed(jobs, encoder, EmbeddingSet.open(sets, "mini", spec, create=True),
      workers=2, batch_clips=3, part_videos=4)
"""


def draw(
    folder: Path, make_video: Callable[..., Path], count: int, **options: Any
) -> list[EmbedJob]:
    folder.mkdir()
    for seed in range(count):
        make_video(folder / f"-video{seed:05d}.mp4", seed=seed, **options)
    return jobs_of(folder)


def jobs_of(folder: Path) -> list[EmbedJob]:
    return [
        EmbedJob(video_id=path.stem, path=str(path), file_sha256=path.stem)
        for path in sorted(folder.iterdir())
    ]


def assert_same(found: EmbeddingSet, expected: EmbeddingSet) -> None:
    """The same ids, spans and timestamps, and vectors equal up to rounding."""
    assert found.verify() == []
    assert found.clips(KEYS).equals(expected.clips(KEYS))
    vectors = [one.matrix().means for one in (found, expected)]
    cosines = (vectors[0] * vectors[1]).sum(axis=1)
    cosines /= np.linalg.norm(vectors[0], axis=1) * np.linalg.norm(vectors[1], axis=1)
    assert cosines.min() >= 0.9999
    np.testing.assert_allclose(*vectors, atol=2e-3)


def videos_in_parts(embeddings: EmbeddingSet) -> Counter[str]:
    """Number of parts that contain each video."""
    _, tables, broken = embeddings.read_keys(["video_id"])
    assert broken == []
    return Counter(
        video_id for table in tables.values() for video_id in set(table.column(0).to_pylist())
    )


def kill_after(process: subprocess.Popen[str], is_time: Callable[[], bool], delay_s: float) -> bool:
    """Kill a process a moment after a condition holds; False if it ended before."""
    while process.poll() is None:
        if is_time():
            time.sleep(delay_s)
            process.kill()
            return process.wait() == -signal.SIGKILL
        time.sleep(0.005)
    return False


@pytest.mark.parametrize(
    ("count", "kills"), [(24, 2), pytest.param(200, 25, marks=pytest.mark.slow)]
)
@pytest.mark.timeout(1200)
def test_kills_do_not_change_the_result(
    tmp_path: Path,
    tiny_encoder_dir: Path,
    make_video: Callable[..., Path],
    count: int,
    kills: int,
) -> None:
    rng = random.Random(count)
    jobs = draw(tmp_path / "videos", make_video, count, seconds=1.2)
    encoder = load_encoder(tiny_encoder_dir, device="cpu", sampling=Sampling(clips=3, stride=2))
    spec = SetSpec(encoder=encoder.spec, dataset="mini")
    undisturbed = EmbeddingSet.open(str(tmp_path / "calm"), "mini", spec, create=True)
    embed(jobs, encoder, undisturbed)
    disturbed = EmbeddingSet.open(str(tmp_path / "sets"), "mini", spec, create=True)
    told = tmp_path / "told"
    told.touch()
    arguments = [str(tiny_encoder_dir), str(tmp_path / "videos"), str(tmp_path / "sets"), str(told)]

    def encoded() -> list[str]:
        return told.read_text().split()

    killed = 0
    for number in range(kills):
        done = set(videos_in_parts(disturbed))
        before = len(encoded())
        with subprocess.Popen(
            [sys.executable, "-c", ENCODE_AND_TELL, *arguments], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            # Spread over the remaining work, so that the last kills hit some.
            wanted = before + rng.randint(0, max(1, 2 * (count - len(done)) // (kills - number)))
            wanted = min(wanted, before + count - len(done) - 1)
            killed += kill_after(process, lambda n=wanted: len(encoded()) >= n, rng.uniform(0, 0.1))
        # Videos recorded before the run were not encoded again.
        assert done.isdisjoint(encoded()[before:])
        assert disturbed.verify() == []
    assert killed >= 0.8 * kills
    lost = Counter(encoded()) - videos_in_parts(disturbed)
    embed(jobs, encoder, disturbed)
    assert_same(disturbed, undisturbed)
    # Each is in one part: none on record was done again. A kill lost at most an incomplete part of
    # four videos and the batch in the encoder.
    assert set(videos_in_parts(disturbed).values()) == {1}
    assert lost.total() <= 8 * kills


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_command_continues_where_it_was(
    tmp_path: Path, tiny_encoder_dir: Path, make_video: Callable[..., Path]
) -> None:
    rng = random.Random(0)
    kills = 3
    # Several seconds of work for two CPUs; the first part is written after one.
    jobs = draw(tmp_path / "drawn", make_video, 10, seconds=4.0, size=(320, 240))
    videos = tmp_path / "videos"
    videos.mkdir()
    for job in jobs:
        for number in range(25):
            os.link(job.path, videos / f"-vid{job.video_id[-4:]}{number:03d}.mp4")
    jobs = jobs_of(videos)
    database = {
        job.video_id: {"class": "AB"[number % 2], "subset": "training", "duration": 4.0}
        for number, job in enumerate(jobs)
    }
    (tmp_path / "COIN.json").write_text(json.dumps({"database": database}))
    home = tmp_path / "home"
    with Ledger(f"sqlite:///{home / 'data' / 'ledger.db'}") as ledger:
        ledger.register(Selection(dataset=str(tmp_path / "COIN.json")).load(tmp_path))
        adopt_folder(ledger, "coin", videos, videos_dir=home / "data/videos/coin", link=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW"))}
    options: dict[str, Any] = {"env": clean | {"COINML_HOME": str(home)}, "text": True}
    options["preexec_fn"] = lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    root = home / "data" / "embeddings"
    command = [
        COMMAND,
        "embed",
        "--dataset",
        str(tmp_path / "COIN.json"),
        "--encoder",
        str(tiny_encoder_dir),
        "--json",
    ]

    def files() -> int:
        return len(list(root.glob("coin/*/*")))

    for _ in range(kills):
        # As soon as the set exists, then each time that it has grown.
        wanted = files() + 1
        with (
            (tmp_path / "log").open("w") as log,
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, **options) as process,
        ):
            killed = kill_after(process, lambda n=wanted: files() >= n, rng.uniform(0, 0.3))
        assert killed, (tmp_path / "log").read_text()
        assert find_set(str(root)).verify() == []
    disturbed = find_set(str(root))
    before = videos_in_parts(disturbed)
    assert 0 < len(before) < len(jobs)
    last = subprocess.run(command, capture_output=True, check=False, timeout=240, **options)
    assert last.returncode == 0, last.stderr
    report = json.loads(last.stdout)
    assert (report["videos"], report["embedded"]) == (len(jobs), len(jobs) - len(before))
    assert set(videos_in_parts(disturbed).values()) == {1}
    encoder = load_encoder(tiny_encoder_dir, device="cpu")
    undisturbed = EmbeddingSet.open(str(tmp_path / "calm"), "coin", disturbed.spec, create=True)
    embed([with_hash(job) for job in jobs], encoder, undisturbed)
    assert_same(disturbed, undisturbed)
    # No process of the killed commands remains.
    deadline = time.monotonic() + 60
    while (left := processes_of(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left == []


def with_hash(job: EmbedJob) -> EmbedJob:
    """The job with its file's hash, as the ledger has it."""
    sha256 = hashlib.sha256(Path(job.path).read_bytes()).hexdigest()
    return replace(job, file_sha256=sha256)


def processes_of(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(folder) in line:
            found.append(line)
    return found
