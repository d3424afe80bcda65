"""The stack that tests of it share, one for each file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coinml.tracking.mlflow_store import MlflowStore
from tests.helpers.coinml_stack import (
    CoinmlStack,
    coinml_stack,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    """Three classes of three short videos."""
    videos = tmp_path_factory.mktemp("clips")
    for number in range(9):
        path = videos / "abc"[number % 3] / f"{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        make_video(path, seconds=0.5, seed=number)
    return videos


@pytest.fixture(scope="module")
def running_stack(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[CoinmlStack]:
    """A stack in a home that was used without servers before."""
    with coinml_stack(tmp_path_factory.mktemp("stack")) as here:
        # A worker counts as hanging after four times as long, so that the test need not wait.
        here.variables["PREFECT_WORKER_HEARTBEAT_SECONDS"] = "10"
        collected = here.coinml("collect", "--dataset", f"folder:{folder}")
        assert collected.returncode == 0, collected.stderr
        store = MlflowStore(
            uri=f"sqlite:///{here.home / 'mlflow.db'}", artifact_root=here.home / "mlartifacts"
        )
        client = store.client()
        run = client.create_run(store.experiment("earlier"), run_name="before any server")
        client.log_metric(run.info.run_id, "val_accuracy", 0.75)
        client.log_text(run.info.run_id, "a,b\n1,2\n", "tables/earlier.csv")
        began = time.monotonic()
        answer = here.up()
        print(f"\nup after {time.monotonic() - began:.1f} s")
        assert answer["was_running"] is False
        for _ in range(2):
            # As runs that were killed: no run of this deployment ends after them.
            crashed = {"type": "CRASHED", "message": "its process was killed"}
            here.start_run("audit/monthly", state=crashed)
        memory = sum(process.memory_info().rss for process in here.processes())
        print(f"{memory / 1e6:.0f} MB in {len(here.processes())} processes")
        yield here
    assert here.processes() == []
