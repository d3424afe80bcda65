"""Flows under Prefect's own test harness: a real server on a temporary database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.testing.utilities import prefect_test_harness

from coinml.collection.options import CollectOptions
from coinml.ledger import Ledger
from coinml.miniature.host import FlakyHost
from coinml.runtime.settings import Settings
from coinml.selection import Selection


@pytest.fixture(scope="session", autouse=True)
def _prefect() -> Iterator[None]:
    # Creating a fresh database takes almost the default of 30 s on two cores.
    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary COINML_HOME."""
    monkeypatch.setenv("COINML_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def coin(
    tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]
) -> tuple[Path, list[str]]:
    """A folder with `COIN.json`, its taxonomy and `videos/<id>.mp4`.

    Two classes of twelve videos of a second, each with two steps; one label has two ids.
    """
    folder = tmp_path_factory.mktemp("coin")
    (folder / "videos").mkdir()
    database = {}
    for number in range(24):
        video_id = f"-video{number:05d}" if number == 0 else f"video{number:06d}"
        make_video(folder / "videos" / f"{video_id}.mp4", seconds=1.0, seed=number)
        database[video_id] = {
            "class": "BoilEgg" if number % 2 else "FrySteak",
            "subset": "testing" if number % 3 == 0 else "training",
            "duration": 1.0,
            "annotation": [
                {"id": step_id, "segment": segment, "label": label}
                for step_id, segment, label in zip(
                    ("1", "2") if number % 2 else ("1", "3"),
                    ([0.1, 0.4], [0.5, 0.9]),
                    ("heat the pan", "put it in"),
                    strict=True,
                )
            ],
        }
    (folder / "taxonomy_domain_target_mapping.csv").write_text(
        "Domains,Targets\nEggs,BoilEgg\nMeat,FrySteak\n"
    )
    (folder / "COIN.json").write_text(json.dumps({"database": database}))
    return folder, sorted(database)


@pytest.fixture
def selection(coin: tuple[Path, list[str]]) -> Selection:
    return Selection(dataset=str(coin[0] / "COIN.json"), name="toy")


@pytest.fixture
def collected(home: Path, coin: tuple[Path, list[str]], selection: Selection) -> Selection:
    """The selection with all videos downloaded."""
    from flows.collect import collect

    with FlakyHost(coin[0] / "videos") as host:
        collect(selection, CollectOptions(source=host.source))
    return selection


@pytest.fixture
def deployments(home: Path, selection: Selection) -> Iterator[dict[str, UUID]]:
    """A scheduled collection with videos to come, and an embedding, each with the name `watched`.

    Their flows are imported here: tests that have no deployments need not load them.
    """
    from flows.collect import collect
    from flows.embed import embed

    with Ledger.of(Settings()) as ledger:
        ledger.register(selection.load(home / "data"))
    schedule = DeploymentScheduleCreate(schedule=CronSchedule(cron="7 * * * *"), active=True)
    made = {}
    with get_client(sync_client=True) as client:
        for some_flow, schedules in ((collect, [schedule]), (embed, [])):
            made[some_flow.name] = client.create_deployment(
                flow_id=client.create_flow(some_flow),
                name="watched",
                tags=["coinml"],
                schedules=schedules,
                parameters={"selection": selection.model_dump(mode="json")},
            )
    yield made
    with get_client(sync_client=True) as client:
        for one in made.values():
            client.delete_deployment(one)
