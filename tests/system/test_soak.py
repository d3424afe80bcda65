"""Weeks in ten minutes: the hourly deployment runs every 30 s, with a flaky host."""

from __future__ import annotations

import sqlite3
import statistics
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from coinml.faults.classification import Fault
from coinml.ledger import DOWNLOADED, Ledger
from coinml.miniature.host import FlakyHost
from tests.helpers.prefect_stack import prefect_stack, processes_of, wait_for
from tests.helpers.small_coin_datasets import write_linked_coin

pytestmark = [pytest.mark.slow, pytest.mark.stack, pytest.mark.timeout(2400)]

RUNS, EVERY_S, VIDEOS, BUDGET = 20, 30, 320, 24
FAULTS = (
    ["404"],
    ["503", "ok"],
    ["ok", "reset", "ok"],
    ["ok", "short", "ok"],
    ["html"],
    ["410"],
    ["403", "ok"],
    ["ok", "empty", "ok"],
    ["reset", "ok"],
    ["500", "503", "ok"],
)
WARM = 6
"""Runs until caches, connections and the next hundred scheduled runs are in memory."""
FLAT = 1.10
"""Allowed ratio of memory in the last third of the remaining runs to the first third."""


def serve(folder: Path, make_video: Callable[..., Path]) -> tuple[Path, FlakyHost]:
    """A COIN of hard links to one file, with a fault for every third."""
    ids = [f"soak{number:07d}" for number in range(VIDEOS)]
    annotations = write_linked_coin(folder, ids, make_video)
    plan = {
        "videos": {
            video_id: FAULTS[number % len(FAULTS)] for number, video_id in enumerate(ids[::3])
        },
        "source": [
            {"after_requests": 90, "answer": "429", "retry_after_s": 2, "times": 3},
            {"after_requests": 300, "answer": "429", "retry_after_s": 45, "times": 2},
        ],
    }
    return annotations, FlakyHost(folder / "videos", plan)


def memory_mb(process: subprocess.Popen[bytes]) -> float:
    return psutil.Process(process.pid).memory_info().rss / 2**20


def test_memory_slots_and_leases_do_not_accumulate(
    tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    annotations, host = serve(tmp_path / "served", make_video)
    with host, prefect_stack(tmp_path / "home") as stack:
        stack.coinml("deploy", "--dataset", str(annotations), "--name", "soak")
        stack.without_triggers()
        hourly = stack.deployment("collect/hourly")
        stack.change(
            "collect/hourly",
            parameters=hourly["parameters"]
            | {"collection": {"source": host.source, "budget": BUDGET, "max_wait_s": 5}},
        )
        worker = stack.start_worker("worker", "network", "gpu")
        stack.ask(
            f"deployments/{hourly['id']}/schedules/{hourly['schedules'][0]['id']}",
            {"schedule": {"interval": EVERY_S}},
            method="PATCH",
        )
        assert stack.server is not None
        used: dict[str, list[float]] = {"server": [], "worker": []}
        for number in range(1, RUNS + 1):
            wait_for(
                lambda number=number: (
                    sum(run["state_type"] == "COMPLETED" for run in stack.runs_of("collect/hourly"))
                    >= number
                ),
                180,
                f"run {number} to be over\n{stack.tail()}",
            )
            used["server"].append(memory_mb(stack.server))
            used["worker"].append(memory_mb(worker))
        stack.change("collect/hourly", paused=True)
        wait_for(
            lambda: not [run for run in stack.flow_runs() if run["state_type"] in UNFINISHED],
            120,
            "the last run to be over",
        )

        states = Counter(run["state_name"] for run in stack.runs_of("collect/hourly"))
        print({name: [round(mb) for mb in sizes] for name, sizes in used.items()}, states)
        # A run is skipped while the previous one is in progress; no other state is allowed.
        assert set(states) <= {"Completed", "Skipped", "Cancelled"}
        types = Counter(run["state_type"] for run in stack.runs_of("collect/hourly"))
        assert set(types) <= {"COMPLETED", "CANCELLED"}
        assert types["COMPLETED"] >= RUNS
        assert stack.slots_taken("collect/hourly") == 0
        assert stack.ask("v2/concurrency_limits/coinml-batches")["active_slots"] == 0
        wait_for(lambda: not processes_of(worker), 60, "the last run's process to end")
        for name, sizes in used.items():
            settled = sizes[WARM:]
            third = len(settled) // 3
            growth = statistics.median(settled[-third:]) / statistics.median(settled[:third])
            assert growth < FLAT, (name, sizes)

        with Ledger(f"sqlite:///{stack.home / 'data' / 'ledger.db'}") as ledger:
            status = ledger.status("soak")
            rows = ledger.rows("soak")
        assert status.total == VIDEOS == len(rows)
        assert status.total == status.downloaded + status.pending + sum(status.faults.values())
        assert status.downloaded > VIDEOS / 2
        assert {row.state for row in rows} <= {DOWNLOADED, *Fault}
        files = {path.stem for path in (stack.home / "data/videos/soak").glob("*.mp4")}
        assert files == {row.video_id for row in rows if row.state == DOWNLOADED}
        gone = {row.video_id for row in rows if row.state == Fault.GONE}
        assert gone
        assert gone <= {
            video_id
            for number, video_id in enumerate(sorted(r.video_id for r in rows)[::3])
            if FAULTS[number % len(FAULTS)] in (["404"], ["410"])
        }
        with sqlite3.connect(stack.home / "data" / "ledger.db") as connection:
            held = "SELECT count(*) FROM videos WHERE lease_owner IS NOT NULL"
            assert connection.execute(held).fetchone() == (0,)
        told = stack.events("coinml.collected")
        assert sum(event["payload"]["new"] for event in told) == status.downloaded


UNFINISHED = {"PENDING", "RUNNING", "CANCELLING"}
