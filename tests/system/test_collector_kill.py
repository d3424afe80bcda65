"""A collector that is killed repeatedly has the same result as an undisturbed one."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coinml.data.records import Dataset, Video
from coinml.ledger import DOWNLOADED, Ledger
from coinml.miniature.host import FlakyHost

pytestmark = pytest.mark.stack

COLLECTOR = textwrap.dedent("""
    import sys
    from coinml.collection.collector import collect
    from coinml.collection.download import FetchOptions
    from coinml.ledger import Ledger
    url, source, folder, run_id = sys.argv[1:]
    ids = Ledger.shared(url).due("mini")
    for start in range(0, len(ids), 10):
        collect(url, "mini", ids[start:start + 10], source=source, folder=folder, run_id=run_id,
                options=FetchOptions(socket_timeout_s=2))
""")
FAULTS = (["404"], ["410"], ["503", "ok"], ["ok", "reset", "ok"], ["ok", "short", "ok"])


def make_plan(ids: list[str]) -> dict[str, list[str]]:
    """A plan with a fault for every fifth video."""
    return {video_id: FAULTS[i % len(FAULTS)] for i, video_id in enumerate(ids[::5])}


def registered(folder: Path, ids: list[str]) -> str:
    url = f"sqlite:///{folder / 'ledger.db'}"
    videos = tuple(
        Video(video_id=video_id, label="saw", subset="training", split="train") for video_id in ids
    )
    with Ledger(url) as ledger:
        ledger.register(Dataset(name="mini", videos=videos))
    return url


def run(url: str, host: FlakyHost, folder: Path, run_id: str) -> subprocess.Popen[bytes]:
    arguments = [url, host.source, str(folder / "videos"), run_id]
    return subprocess.Popen([sys.executable, "-c", COLLECTOR, *arguments], stderr=subprocess.PIPE)


def kill_at(process: subprocess.Popen[bytes], host: FlakyHost, requests: int) -> bool:
    """Kill a collector after that many requests to the host; False if it ended before."""
    while process.poll() is None:
        if len(host.requests()) >= requests:
            time.sleep(random.uniform(0, 0.03))
            process.kill()
            process.wait()
            return True
        time.sleep(0.002)
    return False


def end_state(url: str) -> list[tuple[str, str, str | None]]:
    with Ledger(url) as ledger:
        return [(row.video_id, row.state, row.sha256) for row in ledger.rows("mini")]


@pytest.mark.parametrize(
    ("count", "kills"), [(50, 5), pytest.param(200, 25, marks=pytest.mark.slow)]
)
def test_kills_do_not_change_the_result(
    tmp_path: Path, make_video: Callable[..., Path], count: int, kills: int
) -> None:
    random.seed(count)
    ids = [f"-video{i:05d}" for i in range(count)]
    served = tmp_path / "served"
    served.mkdir()
    make_video(served / f"{ids[0]}.mp4", seconds=0.4)
    for video_id in ids[1:]:
        os.link(served / f"{ids[0]}.mp4", served / f"{video_id}.mp4")

    calm = tmp_path / "calm"
    calm.mkdir()
    calm_url = registered(calm, ids)
    with FlakyHost(served, {"videos": make_plan(ids)}) as host:
        assert run(calm_url, host, calm, "calm").wait(timeout=280) == 0
        total = len(host.requests())

    folder = tmp_path / "disturbed"
    folder.mkdir()
    url = registered(folder, ids)
    done_before_kill: set[str] = set()
    with FlakyHost(served, {"videos": make_plan(ids)}) as host:
        killed = 0
        for number in range(kills):
            process = run(url, host, folder, f"run-{number}")
            # Spread over the remaining work, so that the last kills hit some.
            left = max(1, (total - len(host.requests())) // (kills - number))
            asked = host.log()
            killed += kill_at(process, host, len(host.requests()) + random.randint(1, left))
            # Videos downloaded before this run were not requested again.
            again = {one for one in done_before_kill if host.log().get(one) != asked.get(one)}
            assert again == set()
            with Ledger(url) as ledger:
                rows = ledger.rows("mini", state=DOWNLOADED)
            assert all(row.path and Path(row.path).is_file() for row in rows)
            done_before_kill = {row.video_id for row in rows}
            done_before_kill |= {path.stem for path in (folder / "videos").glob("*.mp4")}
        assert killed >= kills * 0.8
        # A video that failed just before a kill is due a moment later.
        time.sleep(2)
        last = run(url, host, folder, "last")
        _, errors = last.communicate(timeout=280)
        assert (last.returncode, errors) == (0, b"")
        with Ledger(url) as ledger:
            assert ledger.due("mini", retry_now=True, faults=["transient", "pending"]) == []
        extra = {
            video_id: times
            for video_id, times in host.log().items()
            if times > 4 and video_id not in make_plan(ids)
        }
        assert extra == {}
    assert end_state(url) == end_state(calm_url)
    names = {path.name for path in (folder / "videos").iterdir() if path.is_file()}
    assert names == {f"{one}.mp4" for one, state, _ in end_state(url) if state == DOWNLOADED}
