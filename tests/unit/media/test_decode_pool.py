"""Decoding in worker processes that hang, crash and are killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from coinml import media
from coinml.errors import CorruptVideoError, InvalidInputError


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Path]:
    """A file on which a decoder blocks forever, inside the C library."""
    path = tmp_path / "hanging.mp4"
    os.mkfifo(path)
    # A pipe that nobody writes to ends at once; from one that is open for writing, no byte comes.
    descriptor = os.open(path, os.O_RDWR)
    yield path
    os.close(descriptor)


@pytest.fixture
def good(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    return make_video(tmp_path / "good.mp4")


def _wait_for(condition: Callable[[], object], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_hang_fails_only_its_video(hanging: Path, good: Path) -> None:
    with media.DecodePool(workers=1) as pool:
        start = time.monotonic()
        stuck = pool.submit_check(hanging, deadline_s=1)
        after = pool.submit_check(good, deadline_s=20)
        assert stuck.result().verdict == "unusable"
        assert "within 1 s" in str(stuck.result().reason)
        assert time.monotonic() - start < 10
        assert after.result().verdict == "ok"
        with pytest.raises(CorruptVideoError, match=r"hanging\.mp4: does not decode within"):
            pool.submit_sample(hanging, media.ClipSpec(), deadline_s=0.5).result()
        assert pool.check(good).verdict == "ok"


@pytest.mark.parametrize("signal_", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_fails_only_its_video(hanging: Path, good: Path, signal_: signal.Signals) -> None:
    with media.DecodePool(workers=1) as pool:
        doomed = pool.submit_check(hanging, deadline_s=30)
        after = pool.submit_check(good, deadline_s=20)
        _wait_for(lambda: _reads(pool.pids, hanging))
        os.kill(pool.pids[0], signal_)
        assert doomed.result().verdict == "unusable"
        assert signal_.name in str(doomed.result().reason)
        assert after.result().verdict == "ok"


def test_a_file_is_tried_again_after_its_worker_is_killed(hanging: Path, good: Path) -> None:
    with media.DecodePool(workers=1) as pool:
        unlucky = pool.submit_check(hanging, deadline_s=30)
        _wait_for(lambda: _reads(pool.pids, hanging))
        (first,) = pool.pids
        os.kill(first, signal.SIGKILL)
        _wait_for(lambda: pool.pids not in ([], [first]))
        assert not unlucky.done()
        _wait_for(lambda: _reads(pool.pids, hanging))
        os.kill(pool.pids[0], signal.SIGKILL)
        assert "SIGKILL" in str(unlucky.result().reason)
        assert pool.check(good).verdict == "ok"


def _reads(pids: list[int], path: Path) -> bool:
    """Whether one of the processes has the file, twice: it, and FFmpeg's copy."""
    for pid in pids:
        with contextlib.suppress(OSError):
            files = [str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()]
            if files.count(str(path)) == 2:
                return True
    return False


def test_a_worker_that_died_between_requests_is_replaced(good: Path) -> None:
    with media.DecodePool(workers=1) as pool:
        assert pool.check(good).verdict == "ok"
        (first,) = pool.pids
        os.kill(first, signal.SIGKILL)
        _wait_for(lambda: not pool.pids)
        assert pool.check(good).verdict == "ok"
        assert pool.pids != [first]


def test_clips_from_a_worker_equal_those_decoded_in_this_process(good: Path) -> None:
    spec = media.ClipSpec(clips=3, frames=4, stride=2)
    here = media.sample(good, spec, start_s=0.2, end_s=1.5)
    with media.DecodePool() as pool:
        there = pool.submit_sample(good, spec, start_s=0.2, end_s=1.5).result()
        np.testing.assert_array_equal(there.frames, here.frames)
        np.testing.assert_array_equal(there.timestamps_s, here.timestamps_s)
        assert there.decoder == here.decoder
        with pytest.raises(InvalidInputError, match="no frame lies"):
            pool.submit_sample(good, spec, start_s=9, end_s=10).result()
        with pytest.raises(InvalidInputError, match="no such file"):
            pool.submit_sample(good.with_name("none.mp4"), spec).result()


def test_exceeding_the_memory_limit_fails_the_video(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    large = (rng.integers(0, 255, (1080, 1920, 3), dtype=np.uint8) for _ in range(20))
    path = media.write_video(tmp_path / "large.mp4", large, preset="ultrafast")
    with media.DecodePool(memory_bytes=700 << 20) as pool, pytest.raises(CorruptVideoError):
        pool.submit_sample(path, media.ClipSpec()).result()
    with media.DecodePool() as pool:
        assert pool.submit_sample(path, media.ClipSpec()).result().frames.shape[2] == 1080


def test_workers_load_neither_torch_nor_the_parents_main_module(good: Path, tmp_path: Path) -> None:
    main = tmp_path / "main.py"
    main.write_text(
        textwrap.dedent(
            f"""
            from pathlib import Path
            with Path({str(tmp_path / "runs")!r}).open("a") as file:
                file.write("x")
            from coinml import media
            with media.DecodePool() as pool:
                assert pool.submit_sample({str(good)!r}, media.ClipSpec()).result()
                maps = Path(f"/proc/{{pool.pids[0]}}/maps").read_text()
            assert "/av" in maps
            print([name for name in ("torch", "transformers", "pyarrow") if name in maps])
            """
        )
    )
    run = subprocess.run(
        [sys.executable, str(main)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert run.stdout.strip() == "[]"
    assert run.stderr == ""
    assert (tmp_path / "runs").read_text() == "x"


def test_modules_in_the_working_directory_are_not_imported(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "av.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert media.check(good).verdict == "ok"


def test_workers_end_when_the_pool_closes(good: Path, hanging: Path) -> None:
    pool = media.DecodePool(workers=2)
    stuck = pool.submit_check(hanging, deadline_s=60)
    assert pool.submit_check(good).result().verdict == "ok"
    pids = pool.pids
    start = time.monotonic()
    pool.close()
    assert time.monotonic() - start < 5
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert stuck.done()
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        pool.check(good)


def test_workers_do_not_outlive_a_killed_parent(hanging: Path) -> None:
    code = (
        "import sys\nfrom coinml import media\n"
        "pool = media.DecodePool()\n"
        f"pool.submit_check({str(hanging)!r}, deadline_s=600)\n"
        "import time\n"
        "while not pool.pids: time.sleep(0.01)\n"
        "print(pool.pids[0], flush=True)\ntime.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    _wait_for(lambda: _reads([worker], hanging))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _wait_for(lambda: not psutil.pid_exists(worker) or _is_zombie(worker))


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_pool_serves_many_threads(good: Path) -> None:
    verdicts: list[str] = []
    with media.DecodePool(workers=2) as pool:
        threads = [
            threading.Thread(target=lambda: verdicts.append(pool.check(good).verdict))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert verdicts == ["ok"] * 20
