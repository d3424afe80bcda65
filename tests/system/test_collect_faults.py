"""`coinml collect` as a process with faults around it: no work is lost."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from coinml.ledger import DOWNLOADED, PENDING, Ledger
from coinml.miniature.host import FlakyHost

pytestmark = pytest.mark.stack

COMMAND = str(Path(sys.executable).parent / "coinml")
FAULTS = (["404"], ["410"], ["503", "ok"], ["ok", "reset", "ok"], ["ok", "short", "ok"])


class Coin:
    """A COIN of `count` videos with the same content, and the command that collects it."""

    def __init__(self, folder: Path, count: int, first: Path) -> None:
        self.served = folder / "served"
        self.served.mkdir(parents=True)
        self.ids = [f"-video{number:05d}" for number in range(count)]
        for video_id in self.ids:
            os.link(first, self.served / f"{video_id}.mp4")
        self.json = folder / "COIN.json"
        database = {
            video_id: {"class": "AB"[number % 2], "subset": "training", "duration": 0.4}
            for number, video_id in enumerate(self.ids)
        }
        self.json.write_text(json.dumps({"database": database}))

    def start(
        self, home: Path, source: str, *options: str, **variables: str
    ) -> subprocess.Popen[str]:
        clean = {
            k: v for k, v in os.environ.items() if not k.startswith(("COINML", "PREFECT", "MLFLOW"))
        }
        return subprocess.Popen(
            [COMMAND, "collect", "--dataset", str(self.json), "--source", source, *options],
            env=clean | {"COINML_HOME": str(home)} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def collect(
        self, home: Path, source: str, *options: str, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(home, source, *options, **variables)
        stdout, stderr = process.communicate(timeout=280)
        return subprocess.CompletedProcess([], process.returncode, stdout, stderr)


@pytest.fixture
def make_coin(tmp_path: Path, make_video: Callable[..., Path]) -> Callable[[int], Coin]:
    return lambda count: Coin(tmp_path, count, make_video(tmp_path / "first.mp4", seconds=0.4))


def states(home: Path) -> dict[str, tuple[str, str | None]]:
    with Ledger(f"sqlite:///{home / 'data' / 'ledger.db'}") as ledger:
        return {row.video_id: (row.state, row.sha256) for row in ledger.rows("coin")}


def assert_nothing_is_lost(home: Path) -> None:
    """Videos recorded as downloaded exist and are complete; no other file has a final name."""
    here = {video_id for video_id, (state, _) in states(home).items() if state == DOWNLOADED}
    videos = home / "data" / "videos" / "coin"
    assert {path.stem for path in videos.glob("*") if path.is_file()} == here
    assert len({path.stat().st_size for path in videos.glob("*.mp4")}) <= 1


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "kills"), [(200, 3)])
def test_kills_of_the_command_do_not_change_the_result(
    tmp_path: Path, make_coin: Callable[[int], Coin], count: int, kills: int
) -> None:
    random.seed(count)
    coin = make_coin(count)
    plan = {"videos": {one: FAULTS[i % len(FAULTS)] for i, one in enumerate(coin.ids[::5])}}
    with FlakyHost(coin.served, plan) as host:
        calm = coin.collect(tmp_path / "calm", host.source, "--batch-size", "10")
        assert calm.returncode == 0, calm.stderr
        total = len(host.requests())
    home = tmp_path / "disturbed"
    done: set[str] = set()
    with FlakyHost(coin.served, plan) as host:
        for number in range(kills):
            asked = host.log()
            left = total - len(host.requests())
            goal = len(host.requests()) + random.randint(left // (kills + 1), left // 2)
            process = coin.start(home, host.source, "--batch-size", "10")
            wait_for(lambda goal=goal: len(host.requests()) >= goal, process)  # type: ignore[misc]
            process.kill()
            process.communicate()
            assert process.returncode == -9, f"kill {number} came too late"
            assert {one for one in done if host.log().get(one) != asked.get(one)} == set()
            done = {one for one, (state, _) in states(home).items() if state == DOWNLOADED}
        # A video that failed just before a kill is due a moment later.
        time.sleep(3)
        last = coin.collect(home, host.source, "--batch-size", "10")
        again = coin.collect(home, host.source, "--retry-now", "--only", "transient,pending")
        assert (last.returncode, again.returncode) == (0, 0), last.stderr
        assert {one for one in done if host.log()[one] > 4} == set()
    assert states(home) == states(tmp_path / "calm")
    assert_nothing_is_lost(home)


def test_a_full_disk_stops_the_command_with_an_error_and_loses_nothing(
    tmp_path: Path, make_coin: Callable[[int], Coin]
) -> None:
    """A file size limit makes writes fail, as on a full disk."""
    coin = make_coin(12)
    # A `free` box, which players skip, makes three of them larger than the limit.
    content = (coin.served / f"{coin.ids[0]}.mp4").read_bytes()
    size = 48 << 20
    for video_id in coin.ids[-3:]:
        path = coin.served / f"{video_id}.mp4"
        path.unlink()
        with path.open("wb") as file:
            file.write(content + size.to_bytes(4, "big") + b"free")
            file.truncate(len(content) + size)
    with FlakyHost(coin.served) as host:
        limited = subprocess.run(
            [
                "bash",
                "-c",
                'ulimit -f 32768 && exec "$0" "$@"',
                COMMAND,
                "collect",
                "--dataset",
                str(coin.json),
                "--source",
                host.source,
                "--batch-size",
                "1",
            ],
            env=os.environ | {"COINML_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )
        assert limited.returncode == 1, limited.stderr
        last = limited.stderr.strip().splitlines()[-1]
        assert last.startswith("error: ")
        assert "File too large" in last
        assert "Traceback" not in limited.stderr
        found = {video_id: state for video_id, (state, _) in states(tmp_path / "home").items()}
        assert {found[video_id] for video_id in coin.ids[-3:]} == {PENDING}
        assert_nothing_is_lost(tmp_path / "home")
        freed = coin.collect(tmp_path / "home", host.source)
    assert freed.returncode == 0, freed.stderr
    assert {state for state, _ in states(tmp_path / "home").values()} == {DOWNLOADED}


@pytest.mark.parametrize("seconds", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_the_command_waits_for_an_interrupted_network(
    tmp_path: Path, make_coin: Callable[[int], Coin], seconds: float
) -> None:
    coin = make_coin(40)
    plan: dict[str, Any] = {"videos": {one: ["slow"] for one in coin.ids}, "slow_s": 0.1}
    first = FlakyHost(coin.served, plan)
    with first:
        process = coin.start(tmp_path / "home", first.source, "--batch-size", "4")
        wait_for(lambda: len(first.log()) >= 10, process)
    time.sleep(seconds)
    with FlakyHost(coin.served, plan, port=first.port) as second:
        _, stderr = process.communicate(timeout=280)
        # Downloads in progress at the interruption may have failed; a later run does them.
        assert process.returncode in (0, 3), stderr
        here = [one for one, (state, _) in states(tmp_path / "home").items() if state == DOWNLOADED]
        assert len(here) >= 24
        assert second.log()
        rest = coin.collect(tmp_path / "home", second.source, "--retry-now")
    assert rest.returncode == 0, rest.stderr
    assert {state for state, _ in states(tmp_path / "home").values()} == {DOWNLOADED}
    assert_nothing_is_lost(tmp_path / "home")


def test_two_commands_at_once_fetch_no_video_twice(
    tmp_path: Path, make_coin: Callable[[int], Coin]
) -> None:
    coin = make_coin(60)
    home = tmp_path / "home"
    with FlakyHost(coin.served, {"videos": {coin.ids[3]: ["404"]}}) as host:
        both = [coin.start(home, host.source, "--batch-size", size, "--json") for size in "46"]
        ended = [process.communicate(timeout=280) for process in both]
        for process, (_, stderr) in zip(both, ended, strict=True):
            # One may end while the other still has videos leased.
            assert process.returncode in (0, 3), stderr
        # Two requests a video: what is it, and the thing itself.
        assert host.log() == dict.fromkeys(coin.ids, 2) | {coin.ids[3]: 1}
    assert sum(state == DOWNLOADED for state, _ in states(home).values()) == 59
    assert_nothing_is_lost(home)


def test_the_proxy_appears_in_no_file_and_no_output(
    tmp_path: Path, make_coin: Callable[[int], Coin]
) -> None:
    coin = make_coin(6)
    proxy = "http://joeuser:s3cr%40tword@proxy.invalid:3128"
    run = coin.collect(
        tmp_path / "home", "http://tube.invalid/{id}.mp4", "--max-wait", "1", COINML_PROXY=proxy
    )
    assert run.returncode == 1, run.stderr
    assert "proxy" in run.stderr
    files = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert {"ledger.db", "coinml.log", "prefect.db"} <= {path.name for path in files}
    told = {str(path): path.read_bytes() for path in files}
    told["screen"] = (run.stdout + run.stderr).encode()
    secrets: Sequence[bytes] = (b"s3cr%40tword", b"s3cr@tword", b"joeuser", b"proxy.invalid")
    leaks = [(name, s) for name, content in told.items() for s in secrets if s in content]
    assert leaks == []
    assert {state for state, _ in states(tmp_path / "home").values()} == {PENDING}
