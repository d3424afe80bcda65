"""A collector of several sources that is killed between and within them loses nothing."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from coinml.data.records import Dataset, Video
from coinml.ledger import DOWNLOADED, Ledger
from coinml.miniature.host import FlakyHost

pytestmark = pytest.mark.stack

COLLECTOR = textwrap.dedent("""
    import sys
    from coinml.collection.options import CollectOptions
    from coinml.collection.whole_dataset import collect
    from coinml.data.records import Dataset, Video
    from coinml.ledger import Ledger
    url, folder, *sources = sys.argv[1:]
    ledger = Ledger.shared(url)
    videos = tuple(
        Video(video_id=row.video_id, label=row.label, subset=row.subset, split=row.split,
              duration_s=row.duration_s)
        for row in ledger.rows("mini")
    )
    collect(Dataset(name="mini", videos=videos), ledger, folder=folder,
            options=CollectOptions(source=sources, batch_size=10))
""")
COUNT, LENGTH_S = 40, 0.4


def test_kills_between_the_hosts_lose_nothing(
    tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    random.seed(3)
    ids = [f"-video{number:05d}" for number in range(COUNT)]
    whole = make_video(tmp_path / "whole.mp4", seconds=LENGTH_S)
    wrong = make_video(tmp_path / "wrong.mp4", seconds=3, seed=1)
    # The first has a third, of which one is wrong; the second another third; the last has none.
    has = [ids[:14], [ids[0], *ids[14:27]], ids[27:36]]
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with Ledger(url) as ledger:
        ledger.register(
            Dataset(
                name="mini",
                videos=tuple(
                    Video(
                        video_id=one,
                        label="saw",
                        subset="training",
                        split="train",
                        duration_s=LENGTH_S,
                    )
                    for one in ids
                ),
            )
        )
    with ExitStack() as stack:
        hosts = []
        for number, some in enumerate(has):
            folder = tmp_path / f"host{number}"
            folder.mkdir()
            for one in some:
                os.link(wrong if (number, one) == (0, ids[0]) else whole, folder / f"{one}.mp4")
            hosts.append(stack.enter_context(FlakyHost(folder)))
        names = [f"127.0.0.1:{host.port}" for host in hosts]

        def start() -> subprocess.Popen[bytes]:
            sources = [host.source for host in hosts]
            return subprocess.Popen(
                [sys.executable, "-c", COLLECTOR, url, str(tmp_path / "videos"), *sources],
                stderr=subprocess.PIPE,
            )

        def kill_when(host: FlakyHost, requests: int) -> None:
            process = start()
            while process.poll() is None and len(host.requests()) < requests:
                time.sleep(0.002)
            time.sleep(random.uniform(0, 0.05))
            assert process.poll() is None, process.communicate()
            process.kill()
            process.communicate()

        # Within the first, when the second is first asked, within it, and at the last one.
        kills = [(0, 9), (1, 1), (1, 12), (2, 1), (2, 8)]
        for place, requests in kills:
            kill_when(hosts[place], requests)
            with Ledger(url) as ledger:
                rows = ledger.rows("mini", state=DOWNLOADED)
            assert all(Path(row.path or "").read_bytes() == whole.read_bytes() for row in rows)
        last = start()
        _, errors = last.communicate(timeout=200)
        assert (last.returncode, errors) == (0, b"")

        with Ledger(url) as ledger:
            rows = {row.video_id: row for row in ledger.rows("mini")}
            attempts = {one: ledger.attempts("mini", one) for one in ids}
        brought = [rows[one].source for one in ids]
        expected = [names[1]] + [names[0]] * 13 + [names[1]] * 13 + [names[2]] * 9
        assert brought == [*expected, *[None] * 4]
        assert [rows[one].state for one in ids] == [DOWNLOADED] * 36 + ["gone"] * 4
        # Every answer is on record, with its source, once; a kill may repeat the one in progress.
        for one in ids[27:]:
            said = [(attempt.source, attempt.outcome) for attempt in attempts[one]]
            assert said[:2] == [(names[0], "gone"), (names[1], "gone")]
        for number, host in enumerate(hosts):
            recorded = {
                one
                for one in ids
                if any(attempt.source == names[number] for attempt in attempts[one])
                or rows[one].source == names[number]
            }
            assert set(host.log()) <= recorded
            gone = [one for one in host.log() if one not in has[number]]
            assert sum(host.log()[one] - 1 for one in gone) <= len(kills)
    files = {path.name for path in (tmp_path / "videos").iterdir() if path.is_file()}
    assert files == {f"{one}.mp4" for one in ids[:36]}
    left = [path.name for path in (tmp_path / "videos" / ".incoming").iterdir()]
    assert left == []
