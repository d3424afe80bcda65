"""The embed flow when a file is broken, or a decoder or a process of the cluster dies."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from pydantic import ValidationError

from coinml.embedding import dask_cluster
from coinml.embedding.options import EmbedOptions
from coinml.embedding_sets import list_sets
from coinml.embedding_sets.options import SetOptions
from coinml.errors import LocalError
from coinml.ledger import Ledger
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from flows.embed import embed

Coin = tuple[Path, list[str]]
DECODER = "coinml.media.decode_worker"


@contextmanager
def when(find: Callable[[], psutil.Process | None], number: int) -> Iterator[list[int]]:
    """Send a signal to the first process that is found while the block runs; yields its id."""
    hit: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not (hit or over.is_set()):
            try:
                if (found := find()) is not None:
                    # It may have moved on since it was found: check again while it is held.
                    found.suspend()
                    if find() != found:
                        found.resume()
                        continue
                    found.send_signal(number)
                    hit.append(found.pid)
                    if number != signal.SIGSTOP:
                        found.resume()
            except psutil.Error:
                pass
            over.wait(0.005)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield hit
    finally:
        over.set()
        thread.join()


def decoder_of(video: Path) -> Callable[[], psutil.Process | None]:
    """Finds the process that is decoding a file."""

    def find() -> psutil.Process | None:
        for child in psutil.Process().children(recursive=True):
            if any(file.path == str(video) for file in child.open_files()):
                return child
        return None

    return find


def at_work(*roots: int) -> psutil.Process | None:
    """A process below these (or one of them) that is embedding a shard: it has decoders."""
    for root in roots:
        for child in psutil.Process(root).children(recursive=True):
            if DECODER in child.cmdline() and child.ppid() != psutil.Process().pid:
                return psutil.Process(child.ppid())
    return None


def rows_of_parts() -> pd.DataFrame:
    """All rows in the parts of the only set, outdated ones included."""
    (only,) = list_sets(Settings().embeddings_root)
    parts = [pd.read_parquet(path) for path in sorted(Path(only.path).rglob("*.parquet"))]
    assert parts
    return pd.concat(parts).sort_values(["video_id", "clip"], ignore_index=True)


def assert_same(rows: pd.DataFrame, undisturbed: pd.DataFrame) -> None:
    """Assert the same ids and spans, each once, and vectors equal up to rounding."""
    spans = ["video_id", "file_sha256", "start_s", "end_s", "clip"]
    pd.testing.assert_frame_equal(rows[spans], undisturbed[spans])
    ours, theirs = (np.stack(frame["embedding"]).astype(float) for frame in (rows, undisturbed))
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    assert ((ours * theirs).sum(axis=1) / lengths).min() > 0.9999


@pytest.fixture
def options(tiny_encoder_dir: Path) -> SetOptions:
    return SetOptions(encoder=str(tiny_encoder_dir), clips=2)


@pytest.fixture
def undisturbed(collected: Selection, options: SetOptions) -> pd.DataFrame:
    """The rows of the set as this process embeds it; the set itself is moved away again."""
    assert embed(collected, options).embedded == 24
    rows = rows_of_parts()
    (only,) = list_sets(Settings().embeddings_root)
    Path(only.path).rename(Path(only.path).parents[2] / "undisturbed")
    return rows


def test_the_shard_of_a_killed_local_process_is_embedded_by_another(
    collected: Selection, options: SetOptions, undisturbed: pd.DataFrame
) -> None:
    with when(lambda: at_work(psutil.Process().pid), signal.SIGKILL) as hit:
        summary = embed(collected, options, EmbedOptions(devices="cpu,cpu", shard_size=6))
    assert hit
    assert (summary.workers, summary.videos, summary.failed) == (2, 24, {})
    assert_same(rows_of_parts(), undisturbed)


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[tuple[str, list[int]]]:
    """A Dask scheduler and two workers, started by command: the address and the workers' ids."""
    with ExitStack() as stack:

        def start(*arguments: str) -> subprocess.Popen[bytes]:
            log = stack.enter_context((tmp_path / f"{arguments[0]}.log").open("ab"))
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments], stdout=log, stderr=log, cwd=tmp_path
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        file = tmp_path / "scheduler.json"
        start(
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--no-dashboard",
            "--scheduler-file",
            str(file),
        )
        deadline = time.monotonic() + 120
        while not file.is_file() and time.monotonic() < deadline:
            time.sleep(0.1)
        workers = [
            start(
                "worker",
                "--scheduler-file",
                str(file),
                "--nthreads",
                "1",
                "--no-nanny",
                "--no-dashboard",
                "--local-directory",
                str(tmp_path),
            )
            for _ in range(2)
        ]
        address = pd.read_json(file, typ="series")["address"]
        yield address, [worker.pid for worker in workers]


def test_the_shard_of_a_lost_cluster_worker_is_embedded_by_another(
    collected: Selection,
    options: SetOptions,
    undisturbed: pd.DataFrame,
    dask: tuple[str, list[int]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    address, workers = dask
    with when(lambda: at_work(*workers), signal.SIGKILL) as hit:
        summary = embed(
            collected, options, EmbedOptions(runner="dask", address=address, shard_size=6)
        )
    assert hit
    assert hit[0] in workers
    assert (summary.videos, summary.failed) == (24, {})
    assert_same(rows_of_parts(), undisturbed)
    assert "CommClosedError" not in capfd.readouterr().err


def test_a_scheduler_that_does_not_answer_is_named_by_its_address(
    collected: Selection, options: SetOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_cluster, "CONNECT_S", 1.0)
    with pytest.raises(LocalError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1 "):
        embed(collected, options, EmbedOptions(runner="dask", address="tcp://127.0.0.1:1"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"runner": "ray"}, "runner\n  Input should be 'local' or 'dask'"),
        ({"runner": "dask"}, "needs the --address"),
        ({"address": "tcp://127.0.0.1:1"}, "is for --runner dask"),
        ({"runner": "dask", "address": "tcp://x:1", "devices": "cpu"}, "this machine's"),
    ],
)
def test_contradictory_options_are_refused(given: dict[str, str], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        EmbedOptions(**given)


def test_broken_files_fail_alone_and_the_ledger_has_the_reasons(
    collected: Selection, options: SetOptions, coin: Coin, make_video: Callable[..., Path]
) -> None:
    cut, crashing, hanging, unlucky = (
        Settings().videos_dir("toy") / f"{coin[1][number]}.mp4" for number in (5, 11, 17, 20)
    )
    cut.write_bytes(cut.read_bytes()[:300])
    for long in (crashing, hanging, unlucky):
        make_video(long, seconds=40, size=(320, 240), seed=1)
    with (
        when(decoder_of(crashing), signal.SIGSEGV) as crashed,
        when(decoder_of(hanging), signal.SIGSTOP) as stopped,
        when(decoder_of(unlucky), signal.SIGKILL) as killed,
    ):
        summary = embed(collected, options, EmbedOptions(deadline_s=8))
    assert crashed
    assert stopped
    assert killed
    assert set(summary.failed) == {cut.stem, crashing.stem, hanging.stem}
    assert (summary.videos, summary.embedded, sum(summary.decoders.values())) == (21, 21, 21)
    with Ledger(Settings().ledger_url) as ledger:
        rows = {path.stem: ledger.row("toy", path.stem) for path in (cut, crashing, hanging)}
        assert ledger.status("toy").downloaded == 21
        # One SIGKILL from outside is no evidence against the file.
        assert ledger.row("toy", unlucky.stem).state == "downloaded"
    assert {row.state for row in rows.values()} == {"corrupt"}
    assert all(row.message == summary.failed[row.video_id] for row in rows.values())
    assert "does not decode within 8 s" in rows[hanging.stem].message
    assert "the decoder crashed (SIGSEGV)" in rows[crashing.stem].message
    again = embed(collected, options)
    assert (again.videos, again.embedded, again.failed) == (21, 0, {})


def test_a_damaged_part_and_spec_heal_in_the_chain(
    collected: Selection, tiny_encoder_dir: Path
) -> None:
    made = SetOptions(encoder=str(tiny_encoder_dir), clips=2)
    embed(collected, made)
    (found,) = list_sets(Settings().embeddings_root, "toy")
    before = found.videos()
    part = Path(found.path, found.parts()[0])
    content = bytearray(part.read_bytes())
    # A bit of a vector: the keys beside it are whole.
    vector = found.read(part.name).column("embedding")[0].as_py()
    content[content.index(np.array(vector, np.float16).tobytes())] ^= 1
    part.write_bytes(content)
    Path(found.path, "spec.json").write_text("{")
    assert list_sets(Settings().embeddings_root, "toy") == []
    report = embed(collected, made)
    assert 0 < report.embedded <= 24
    (healed,) = list_sets(Settings().embeddings_root, "toy")
    assert healed.verify() == []
    pd.testing.assert_frame_equal(healed.videos(), before)
    assert Path(found.path, f"bad-{part.name}").read_bytes() == content
