"""A home that is destroyed in the middle of a collection goes on from its copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coinml.data.records import Dataset, Video
from coinml.ledger import DOWNLOADED, Ledger
from coinml.miniature.host import FlakyHost
from coinml.runtime.settings import Settings

pytestmark = pytest.mark.stack

COLLECTOR = textwrap.dedent("""
    import sys
    from coinml.collection.collector import collect
    from coinml.collection.download import FetchOptions
    from coinml.ledger import Ledger
    from coinml.runtime.settings import Settings
    settings = Settings()
    with Ledger.of(settings) as ledger:
        ids = ledger.due("mini")
    folder, options = settings.videos_dir("mini"), FetchOptions(socket_timeout_s=200)
    collect(settings.ledger_url, "mini", ids, source=sys.argv[1], folder=folder,
            run_id=sys.argv[2], options=options)
""")
VIDEOS = 60


class HoldingHost(FlakyHost):
    """Answers `allowed` requests; the next ones wait until more are allowed.

    However fast the machine, a collection is then still at work when it is looked at.
    """

    def __init__(self, folder: Path, *, allowed: int) -> None:
        super().__init__(folder)
        self._more = threading.Condition()
        self._allowed, self._answered = allowed, 0

    def allow(self, requests: int) -> None:
        with self._more:
            self._allowed = requests
            self._more.notify_all()

    def decide(self, video_id: str) -> tuple[str, float | None]:
        with self._more:
            assert self._more.wait_for(lambda: self._answered < self._allowed, timeout=200)
            self._answered += 1
        return super().decide(video_id)


def test_nothing_is_downloaded_twice_after_a_restore(
    tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    ids = [f"-video{i:05d}" for i in range(VIDEOS)]
    served = tmp_path / "served"
    served.mkdir()
    make_video(served / f"{ids[0]}.mp4", seconds=0.4)
    for video_id in ids[1:]:
        os.link(served / f"{ids[0]}.mp4", served / f"{video_id}.mp4")
    home = Settings(home=tmp_path / "home")
    with Ledger.of(home) as ledger:
        ledger.register(
            Dataset(
                name="mini",
                videos=tuple(
                    Video(video_id=one, label="saw", subset="training", split="train")
                    for one in ids
                ),
            )
        )
    copies = str(tmp_path / "copies")
    with HoldingHost(served, allowed=VIDEOS // 2) as host:
        process = collector(home, host, "first")
        wait_for_downloads(home, VIDEOS // 4)
        run(home, "backup", copies)
        in_copy = downloaded(home)
        assert process.poll() is None
        # Some more, which the copy does not know.
        host.allow(VIDEOS - 10)
        wait_for_downloads(home, len(in_copy) + 3)
        process.kill()
        process.wait()
        shutil.rmtree(home.home)

        there = Settings(home=tmp_path / "elsewhere")
        run(there, "restore", copies, "--json")
        known = downloaded(there)
        assert VIDEOS // 4 <= len(known) <= len(in_copy) < VIDEOS
        asked = host.log()
        host.allow(10 * VIDEOS)
        again = collector(there, host, "second")
        assert again.wait(timeout=250) == 0
        assert downloaded(there) == set(ids)
        assert {one for one in known if host.log().get(one) != asked.get(one)} == set()
    assert len(list(there.videos_dir("mini").glob("*.mp4"))) == VIDEOS


def environment(settings: Settings) -> dict[str, str]:
    return {**os.environ, "COINML_HOME": str(settings.home)}


def collector(settings: Settings, host: FlakyHost, run_id: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", COLLECTOR, host.source, run_id], env=environment(settings)
    )


def run(settings: Settings, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coinml_cli", *arguments],
        env=environment(settings),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def downloaded(settings: Settings) -> set[str]:
    with Ledger.of(settings) as ledger:
        return {row.video_id for row in ledger.rows("mini", state=DOWNLOADED)}


def wait_for_downloads(settings: Settings, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(downloaded(settings)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)
