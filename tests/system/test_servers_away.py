"""MLflow or Prefect unavailable during a run: it continues, or the next run completes the work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mlflow
import pytest

from coinml.ledger import Ledger
from coinml.miniature.host import FlakyHost
from tests.helpers.coinml_stack import fetch, free_port, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.stack, pytest.mark.timeout(900)]

AWAY_S = 8.0
LONG_S = 400.0
"""Longer than any step takes on a busy machine."""

FLOWS = """
import json, sys, time
from coinml_ops.environment import prepare_environment
prepare_environment()
from coinml.runtime import progress
from coinml.selection import Selection
from coinml.collection.options import CollectOptions
from coinml.embedding_sets.options import SetOptions
from coinml.training.options import TrainOptions

class Slow:
    def begin(self, stage, total):
        pass
    def advance(self, stage, items, total):
        if items and stage == job["slow"]:
            print("step", flush=True)
            time.sleep(0.25)
    def end(self, stage):
        pass

job = json.loads(sys.argv[1])
chosen = Selection(dataset=job["dataset"], name=job["name"])
made = SetOptions(encoder=job["encoder"], clips=2)
with progress.listening(Slow()):
    for name in job["flows"]:
        if name == "collect":
            from flows.collect import collect
            print(collect(chosen, CollectOptions(source=job["source"], batch_size=4)), flush=True)
        elif name == "embed":
            from flows.embed import embed
            print(embed(chosen, made), flush=True)
        else:
            from flows.train import train
            print(train(chosen, made, TrainOptions(heads=("mlp",))), flush=True)
print("done", flush=True)
"""


@dataclass
class Server:
    """A server as a process, always on the same port."""

    name: str
    command: list[str]
    folder: Path
    health: str
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=os.environ | self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(self.answers, seconds=120, said=lambda: (self.folder / "log").read_text())

    def answers(self) -> bool:
        try:
            return bool(fetch(self.health))
        except OSError:
            return False

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """Kill it with its children, without warning."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait(30)
            self.process = None


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    server = Server(
        "mlflow",
        [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
            "--backend-store-uri",
            f"sqlite:///{folder / 'mlflow.db'}",
            "--artifacts-destination",
            str(folder / "artifacts"),
        ],
        folder,
        f"http://127.0.0.1:{port}/version",
        {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder, port = tmp_path_factory.mktemp("prefect"), free_port()
    server = Server(
        "prefect",
        [
            sys.executable,
            "-m",
            "prefect",
            "server",
            "start",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ],
        folder,
        f"http://127.0.0.1:{port}/api/health",
        {"PREFECT_HOME": str(folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
    )
    server.start()
    yield server
    server.kill()


@dataclass
class Place:
    """A COINML_HOME whose flows use both servers.

    Attributes:
        home: COINML_HOME.
        job: Dataset, encoder and source of the flows.
        variables: Additional environment variables.
    """

    home: Path
    job: dict[str, Any]
    variables: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def named(self, name: str) -> Place:
        """The same home with the same videos under another dataset name."""
        return replace(self, job={**self.job, "name": name})

    def start(self, *flows: str, slow: str = "", **variables: str) -> subprocess.Popen[str]:
        job = json.dumps({**self.job, "flows": flows, "slow": slow})
        with (self.home / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", FLOWS, job],
                cwd=self.home,
                text=True,
                stderr=log,
                stdout=subprocess.PIPE,
                env=os.environ | self.variables | variables,
            )
        self.started.append(process)
        return process

    def said(self) -> str:
        return (self.home / "log").read_text()[-6000:]


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
    make_video: Callable[..., Path],
    tiny_encoder_dir: Path,
    mlflow_server: Server,
    prefect_server: Server,
) -> Iterator[tuple[Place, FlakyHost]]:
    home, coin = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("coin")
    (coin / "videos").mkdir()
    database = {}
    for number in range(24):
        video_id = f"video{number:06d}"
        make_video(coin / "videos" / f"{video_id}.mp4", seconds=1.0, seed=number)
        subset = "testing" if number % 3 == 0 else "training"
        database[video_id] = {"class": "AB"[number % 2], "subset": subset, "duration": 1.0}
    (coin / "COIN.json").write_text(json.dumps({"database": database}))
    variables = {
        "COINML_HOME": str(home),
        "MLFLOW_TRACKING_URI": mlflow_server.health.removesuffix("/version"),
        "PREFECT_API_URL": prefect_server.health.removesuffix("/health"),
        "PREFECT_HOME": str(home / "prefect"),
    }
    with FlakyHost(coin / "videos") as host:
        job = {
            "dataset": str(coin / "COIN.json"),
            "name": "toy",
            "encoder": str(tiny_encoder_dir),
            "source": host.source,
        }
        here = Place(home, job, variables)
        process = here.start("collect", "embed")
        assert process.wait(LONG_S) == 0, here.said()
        yield here, host
        for process in here.started:
            process.kill()
            process.wait()


def steps_of(process: subprocess.Popen[str], *, until: int) -> None:
    assert process.stdout is not None
    seen = 0
    for line in process.stdout:
        seen += line == "step\n"
        if seen == until:
            return
    raise AssertionError(f"ended after {seen} of {until} steps")


def runs_of(place: Place) -> tuple[mlflow.MlflowClient, list[Any]]:
    client = mlflow.MlflowClient(place.variables["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("toy-task")
    return client, client.search_runs([experiment.experiment_id]) if experiment else []


def assert_complete(place: Place, *, runs: int) -> None:
    """Every run is finished, has the metrics of each epoch, and has one registered version."""
    client, found = runs_of(place)
    assert [run.info.status for run in found] == ["FINISHED"] * runs
    assert len(client.search_model_versions("name = 'toy-task'")) == runs
    for run in found:
        epochs = int(run.data.params["epochs_trained"])
        steps = {one.step for one in client.get_metric_history(run.info.run_id, "epoch/val_loss")}
        assert steps == set(range(1, epochs + 1))
        listed = {one.path for one in client.list_artifacts(run.info.run_id, "figures")}
        assert {"figures/curves.png", "figures/confusion.png"} <= listed


def forget_trained_heads(place: Place) -> None:
    """Delete runs and versions, so that the next training does not reuse them."""
    client, found = runs_of(place)
    for version in client.search_model_versions("name = 'toy-task'"):
        client.delete_model_version("toy-task", version.version)
    for run in found:
        client.delete_run(run.info.run_id)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_collection_continues_while_prefect_is_unavailable(
    place: tuple[Place, FlakyHost], prefect_server: Server, how: str
) -> None:
    here, host = place
    before = host.log()
    process = here.named(how).start("collect", slow="collect")
    steps_of(process, until=4)
    make_unavailable(prefect_server, how)
    assert process.wait(LONG_S) == 0, here.said()
    # A download takes two requests: no video was downloaded twice.
    assert {i: n - before[i] for i, n in host.log().items()} == dict.fromkeys(before, 2)
    api = here.variables["PREFECT_API_URL"]
    wanted = {"flow_runs": {"name": {"any_": [f"collect {how} 24/24"]}}}
    (run,) = json.loads(fetch(f"{api}/flow_runs/filter", body=wanted))
    assert run["state_type"] == "COMPLETED"


def test_a_collection_that_lost_prefect_is_completed_by_the_next_run(
    place: tuple[Place, FlakyHost], prefect_server: Server
) -> None:
    here, host = place
    before, cut = host.log(), here.named("cut")
    process = cut.start("collect", slow="collect", PREFECT_CLIENT_MAX_RETRIES="0")
    steps_of(process, until=4)
    prefect_server.kill()
    process.communicate(timeout=LONG_S)
    # Its exit code does not matter: it has ended, and its downloads are recorded.
    with Ledger(f"sqlite:///{here.home / 'data' / 'ledger.db'}") as ledger:
        assert ledger.status("cut").downloaded >= 4
    prefect_server.start()
    process = cut.start("collect")
    said, _ = process.communicate(timeout=LONG_S)
    assert process.returncode == 0, here.said()
    assert "24 of 24 videos are downloaded" in said
    assert {i: n - before[i] for i, n in host.log().items()} == dict.fromkeys(before, 2)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_training_continues_while_mlflow_is_unavailable_and_its_metrics_arrive(
    place: tuple[Place, FlakyHost], mlflow_server: Server, how: str
) -> None:
    here, _ = place
    forget_trained_heads(here)
    process = here.start("train", slow="train mlp")
    steps_of(process, until=5)
    began = time.monotonic()
    make_unavailable(mlflow_server, how, meanwhile=lambda: steps_of(process, until=5))
    # It did not wait for MLflow: five more epochs while MLflow was unavailable.
    assert time.monotonic() - began < 60
    assert process.wait(LONG_S) == 0, here.said()
    assert_complete(here, runs=1)


def test_a_head_that_could_not_be_registered_is_registered_by_the_next_run(
    place: tuple[Place, FlakyHost], mlflow_server: Server
) -> None:
    here, _ = place
    forget_trained_heads(here)
    process = here.start(
        "train",
        slow="train mlp",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="1",
        MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR="0",
    )
    steps_of(process, until=5)
    mlflow_server.kill()
    said, _ = process.communicate(timeout=LONG_S)
    assert process.returncode != 0
    assert "step" in said
    assert "does not answer" in here.said()
    assert len(list((here.home / "data" / "fitted").iterdir())) == 1
    mlflow_server.start()
    (left,) = runs_of(here)[1]
    assert left.info.status == "RUNNING"
    process = here.start("train", slow="train mlp")
    said, _ = process.communicate(timeout=LONG_S)
    assert process.returncode == 0, here.said()
    # No epoch was trained again.
    assert "step" not in said
    assert_complete(here, runs=1)
    assert runs_of(here)[1][0].info.run_id == left.info.run_id
    assert list((here.home / "data" / "fitted").iterdir()) == []
    # Each server links to the other.
    api, uri = here.variables["PREFECT_API_URL"], here.variables["MLFLOW_TRACKING_URI"]
    wanted = {"artifacts": {"key": {"any_": ["heads-toy-task"]}}, "sort": "CREATED_DESC"}
    table = json.loads(fetch(f"{api}/artifacts/filter", body=wanted))[0]["data"]
    experiment = left.info.experiment_id
    assert f"]({uri}/#/experiments/{experiment}/runs/{left.info.run_id})" in table
    tags = runs_of(here)[1][0].data.tags
    page = f"{api.removesuffix('/api')}/runs/flow-run/{tags['prefect_flow_run_id']}"
    assert tags["prefect_flow_run_page"] == page


def make_unavailable(
    server: Server, how: str, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Stop (SIGSTOP) or kill a server, and bring it back after a while."""
    if how == "stopped":
        server.signal(signal.SIGSTOP)
    else:
        server.kill()
    meanwhile()
    time.sleep(AWAY_S)
    if how == "stopped":
        server.signal(signal.SIGCONT)
    else:
        server.start()
