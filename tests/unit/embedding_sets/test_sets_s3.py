"""Sets in a bucket, against a real S3 server on loopback."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from coinml.embedding.engine import embed
from coinml.embedding.jobs import EmbedJob
from coinml.embedding_sets import EmbeddingSet, find_set, list_sets
from coinml.embedding_sets.compaction import compact
from coinml.embedding_sets.spec import SetSpec
from coinml.encoder.clip_encoder import load_encoder
from coinml.encoder.sampling import Sampling
from coinml.errors import InvalidInputError, LocalError
from coinml.runtime.settings import Settings
from coinml_cli.app import app
from coinml_ops.upkeep.backup import back_up
from coinml_ops.upkeep.restore import restore
from tests.helpers.small_sets import SPEC, rows

moto = pytest.importorskip("moto.server", reason="pip install 'coinml[dev]'")
s3fs = pytest.importorskip("s3fs", reason="pip install 'coinml[s3]'")

KEY, SECRET = "AKIDLOOPBACK", "a-secret-of-this-test"
ROOT = "s3://bucket/some/sets"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "COINML_EMBEDDINGS_ROOT": ROOT,
        "COINML_HOME": str(tmp_path / "home"),
    }.items():
        monkeypatch.setenv(name, value)
    # Cached file systems of other tests point at another server.
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    files.mkdir("bucket")
    yield files
    files.rm("bucket", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


def run(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["embeddings", *arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_embedding_resumes_in_a_bucket(
    bucket: Any, tmp_path: Path, tiny_encoder_dir: Path, make_video: Callable[..., Path]
) -> None:
    encoder = load_encoder(tiny_encoder_dir, device="cpu", sampling=Sampling(clips=2, stride=2))
    spec = SetSpec(encoder=encoder.spec, dataset="mini")
    jobs = [
        EmbedJob(
            video_id=f"video{seed}",
            path=str(make_video(tmp_path / f"video{seed}.mp4", seconds=1.0, seed=seed)),
            file_sha256=str(seed),
        )
        for seed in range(4)
    ]
    there = EmbeddingSet.open(ROOT, "mini", spec, create=True)
    assert embed(jobs[:3], encoder, there, workers=1).embedded == 3
    again = EmbeddingSet.open(ROOT, "mini", spec, create=True)
    report = embed(jobs, encoder, again, workers=1)
    assert (report.embedded, report.skipped) == (1, 3)
    local = EmbeddingSet.open(str(tmp_path / "sets"), "mini", spec, create=True)
    embed(jobs, encoder, local, workers=1)
    found, expected = again.videos(), local.videos()
    assert found["video_id"].tolist() == [job.video_id for job in jobs]
    vectors = [table.filter(regex=r"^e\d").to_numpy() for table in (found, expected)]
    np.testing.assert_allclose(*vectors, atol=2e-3)
    names = {name.rsplit("/", 1)[1] for name in bucket.find(again.path)}
    assert names == {"spec.json", *again.parts()}


def test_the_commands_work_on_a_bucket(bucket: Any, tmp_path: Path) -> None:
    there = EmbeddingSet.open(ROOT, "mini", SPEC, create=True)
    for number in range(5):
        there.append([rows(f"v{number}", value=number), rows("same", sha=str(number))])
    before = there.clips()
    (listed,) = run("list")
    assert (listed["videos"], listed["parts"], listed["fingerprint"]) == (6, 5, SPEC.fingerprint)
    assert run("show", SPEC.fingerprint[:4])["size_bytes"] == sum(there.part_sizes().values())
    assert run("verify")["broken"] == []
    assert run("compact")["parts_after"] == 1
    assert there.clips().equals(before)
    assert there.videos({"v1": "aa", "same": "4"})["video_id"].tolist() == ["same", "v1"]
    out = tmp_path / "x.tar"
    assert run("export", "--format", "tar", "--out", str(out))["videos"] == 6
    # A page damaged in the bucket is detected and set aside.
    (part,) = there.parts()
    content = bytearray(bucket.cat_file(f"{there.path}/{part}"))
    content[content.index((rows("x").embeddings + 3).astype(np.float16)[1].tobytes())] ^= 1
    bucket.pipe_file(f"{there.path}/{part}", bytes(content))
    assert [one["part"] for one in run("verify", code=1)["broken"]] == [part]
    assert run("verify", "--set-aside")["set_aside"]
    assert there.parts() == []
    assert bucket.exists(f"{there.path}/bad-{part}")
    assert there.done() == set()


def test_two_processes_compact_one_set_in_a_bucket(bucket: Any) -> None:
    there = EmbeddingSet.open(ROOT, "mini", SPEC, create=True)
    for number in range(4):
        there.append([rows(f"v{number}", value=number)])
    before = there.clips()
    # The first has listed the parts; then the second compacts, and those parts are gone.
    listing, seen = EmbeddingSet.parts, []

    def list_then_lose(self: EmbeddingSet) -> list[str]:
        found = listing(self)
        if not seen:
            seen.append(found)
            compact(there)
        return found

    first = find_set(ROOT)
    first.parts = list_then_lose.__get__(first)  # type: ignore[method-assign]
    compact(first)
    assert len(seen[0]) == 4
    assert len(there.parts()) == 1
    assert there.clips().equals(before)


def test_errors_of_a_bucket_contain_no_secrets(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(LocalError, match="nowhere"):
        EmbeddingSet.open("s3://nowhere/sets", "mini", SPEC, create=True)
    assert list_sets("s3://bucket/empty") == []
    with pytest.raises(InvalidInputError, match=r"://\*\*\*@host"):
        EmbeddingSet.open("moon://me:hidden@host/sets", "mini", SPEC)
    # An unreachable server, in a process of its own.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    command = str(Path(sys.executable).parent / "coinml")
    done = subprocess.run(
        [command, "embeddings", "verify"], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    logs = "".join(path.read_text() for path in (tmp_path / "home").rglob("*.log"))
    for text in (done.stdout, done.stderr, logs, caplog.text):
        assert SECRET not in text
        assert KEY not in text
        assert "hidden" not in text


@pytest.mark.usefixtures("bucket")
def test_a_home_is_backed_up_to_a_bucket_and_comes_back(tmp_path: Path) -> None:
    place = "s3://bucket/copies"
    home = Settings(home=tmp_path / "home", embeddings_root=f"{tmp_path}/home/sets")
    EmbeddingSet.open(home.embeddings_root, "mini", SPEC, create=True).append([rows("a")])
    (home.data_dir / "splits").mkdir(parents=True)
    (home.data_dir / "splits" / "x.json").write_text("{}")
    first = back_up(home, place)
    assert first.files["embeddings"] == 2
    assert back_up(home, place, keep=1).written_bytes == 0
    there = Settings(home=tmp_path / "there", embeddings_root=f"{tmp_path}/there/sets")
    restore(there, place)
    found = EmbeddingSet.open(there.embeddings_root, "mini", SPEC)
    assert found.done() == {("a", None, None, "aa")}
    assert (there.data_dir / "splits" / "x.json").read_text() == "{}"
    # Sets in a bucket are not copied, and that is said.
    assert any("in a bucket" in one for one in back_up(Settings(), place).left_out)
