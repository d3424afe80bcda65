"""Runs, workers and the server are killed: no run stays Running, no video is downloaded twice."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from coinml.ledger import DOWNLOADED, Ledger
from coinml.miniature.host import FlakyHost
from coinml_ops.access.password import auth_string
from coinml_ops.deployments.automations import SILENT_S
from tests.helpers.prefect_stack import (
    PASSWORD,
    PrefectStack,
    kill,
    prefect_stack,
    processes_of,
    wait_for,
)
from tests.helpers.small_coin_datasets import write_linked_coin

pytestmark = [pytest.mark.slow, pytest.mark.stack, pytest.mark.timeout(900)]

VIDEOS = 24
REQUESTS = 2
"""Per video: yt-dlp examines it before it downloads it."""
AT_MOST_S = SILENT_S + 120
"""Time until the automation has marked a silent run, on a slow machine."""


@dataclass(frozen=True)
class Toy:
    """A dataset with slow downloads, so that a run can be killed half-way."""

    name: str
    annotations: Path
    host: FlakyHost
    ids: tuple[str, ...]

    @property
    def parameters(self) -> dict[str, object]:
        selection = {"dataset": str(self.annotations), "name": self.name}
        collection = {"source": self.host.source, "batch_size": 4}
        return {"selection": selection, "collection": collection}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectStack]:
    with prefect_stack(tmp_path_factory.mktemp("crashes") / "home") as stack:
        stack.more = {"COINML_PARALLEL": "2"}
        stack.coinml("deploy", "--dataset", "mini")
        stack.without_triggers()
        yield stack


@pytest.fixture
def toys(tmp_path: Path, make_video: Callable[..., Path]) -> Iterator[Callable[[str], Toy]]:
    hosts = []

    def make(name: str) -> Toy:
        folder = tmp_path / name
        ids = tuple(f"{name}{number:0{11 - len(name)}d}" for number in range(VIDEOS))
        annotations = write_linked_coin(folder, ids, make_video)
        plan = {"videos": {video_id: ["slow"] for video_id in ids}, "slow_s": 2.0}
        host = FlakyHost(folder / "videos", plan).__enter__()
        hosts.append(host)
        return Toy(name, annotations, host, ids)

    yield make
    for host in hosts:
        host.__exit__(None, None, None)


def downloaded(stack: PrefectStack, toy: Toy) -> set[str]:
    with Ledger(f"sqlite:///{stack.home / 'data' / 'ledger.db'}") as ledger:
        return {row.video_id for row in ledger.rows(toy.name, state=DOWNLOADED)}


def leases(stack: PrefectStack, toy: Toy) -> int:
    with sqlite3.connect(stack.home / "data" / "ledger.db") as connection:
        held = "SELECT count(*) FROM videos WHERE lease_owner IS NOT NULL AND dataset = ?"
        return int(connection.execute(held, (toy.name,)).fetchone()[0])


def await_half(stack: PrefectStack, toy: Toy) -> set[str]:
    wait_for(lambda: len(downloaded(stack, toy)) >= 4, 120, f"the first videos of {toy.name}")
    return downloaded(stack, toy)


def assert_next_run_completes(
    stack: PrefectStack, toy: Toy, deployment: str, done: set[str]
) -> None:
    """The next run downloads the rest, and requests no downloaded video again."""
    asked = toy.host.log()
    run = stack.await_state(
        stack.run(deployment, **toy.parameters), "COMPLETED", "FAILED", "CRASHED", within_s=180
    )
    assert run["state"]["name"] == "Completed", run["state"]
    assert downloaded(stack, toy) == set(toy.ids)
    assert not [one for one in done if toy.host.log()[one] != asked[one]]
    # Only the two downloads in progress at the kill were requested twice.
    assert sum(toy.host.log().values()) <= REQUESTS * (VIDEOS + 2)
    assert leases(stack, toy) == 0
    assert stack.slots_taken(deployment) == 0


def test_killed_runs_are_marked_as_crashed_and_their_work_is_continued(
    stack: PrefectStack, toys: Callable[[str], Toy]
) -> None:
    alone, both = toys("alone"), toys("both")
    lasting = stack.start_worker("lasting", "gpu")
    dying = stack.start_worker("dying", "network")
    # No worker watches a subflow: only the automation can mark it as crashed.
    nightly = stack.run("reprocess/nightly", **alone.parameters)
    hourly = stack.run("collect/hourly", **both.parameters)
    done = {toy.name: await_half(stack, toy) for toy in (alone, both)}

    for process in processes_of(lasting):
        kill(process)
    flow_processes = processes_of(dying)
    kill(dying)
    for process in flow_processes:
        kill(process)

    said = stack.await_state(nightly, "CRASHED", within_s=60)
    assert stack.slots_taken("reprocess/nightly") == 0
    assert stack.flow_run(hourly)["state_type"] == "RUNNING"
    assert stack.slots_taken("collect/hourly") == 1

    silent = stack.await_state(hourly, "CRASHED", within_s=AT_MOST_S)
    assert "No heartbeat" in silent["state"]["message"]
    assert "No heartbeat" not in said["state"]["message"]
    assert stack.slots_taken("collect/hourly") == 0
    wait_for(
        lambda: not [run for run in stack.flow_runs() if run["state_type"] == "RUNNING"],
        AT_MOST_S,
        "the subflow to be marked",
    )
    inner = [run for run in stack.flow_runs() if run["parent_task_run_id"]]
    assert [run["state_type"] for run in inner] == ["CRASHED"]

    stack.start_worker("heir", "network")
    assert_next_run_completes(stack, both, "collect/hourly", done["both"])
    assert_next_run_completes(stack, alone, "collect/hourly", done["alone"])


def test_a_run_that_a_worker_took_and_never_started_is_marked_as_crashed(
    stack: PrefectStack,
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    from coinml_ops.deployments.automations import STARTING_S, automations

    server = {PREFECT_API_URL: stack.api, PREFECT_API_AUTH_STRING: auth_string(PASSWORD)}
    with temporary_settings(server), get_client(sync_client=True) as client:
        (automation,) = (one for one in automations() if "never" in one.name)
        assert automation.trigger.within == timedelta(seconds=STARTING_S)
        (there,) = client.read_automations_by_name(automation.name)
        automation.trigger.within = timedelta(seconds=10)
        client.update_automation(there.id, automation)
        try:
            deployment = stack.deployment("pipeline/coin")["id"]
            later = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2126-01-01T00:00Z"}}
            run = stack.ask(f"deployments/{deployment}/create_flow_run", {"state": later})["id"]
            # As a worker does it that takes the run and is gone.
            stack.ask(f"flow_runs/{run}/set_state", {"state": {"type": "PENDING"}})
            assert stack.slots_taken("pipeline/coin") == 1
            crashed = stack.await_state(run, "CRASHED", within_s=90)
        finally:
            automation.trigger.within = timedelta(seconds=STARTING_S)
            client.update_automation(there.id, automation)
    assert "not started" in crashed["state"]["message"]
    assert stack.slots_taken("pipeline/coin") == 0


HOLDER = textwrap.dedent("""
    import time
    from tasks.limits import batch_slots
    with batch_slots(8):
        print("in", flush=True)
        time.sleep(600)
""")


def test_a_run_survives_a_kill_of_the_server(
    stack: PrefectStack, toys: Callable[[str], Toy]
) -> None:
    """The slots of a killed run are released once the server is back."""
    toy = toys("away")
    stack.start_worker("patient", "network")
    run = stack.run("collect/hourly", **toy.parameters)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, env=stack.client_environment
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"in\n"
    kill(holder)
    await_half(stack, toy)
    assert stack.ask("v2/concurrency_limits/coinml-batches")["active_slots"] == 10
    stack.kill_server()
    stack.start_server()
    ended = stack.await_state(run, "COMPLETED", "FAILED", "CRASHED", within_s=180)
    assert ended["state"]["name"] == "Completed", ended["state"]
    assert downloaded(stack, toy) == set(toy.ids)
    assert set(toy.host.log().values()) == {REQUESTS}
    assert stack.slots_taken("collect/hourly") == 0
    wait_for(
        lambda: stack.ask("v2/concurrency_limits/coinml-batches")["active_slots"] == 0,
        120,
        "the killed run's slots",
    )
