"""Flows under Prefect's own test harness: a real server on a temporary database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prefect.testing.utilities import prefect_test_harness

from coinml.collection.options import CollectOptions
from coinml.miniature.host import FlakyHost
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
