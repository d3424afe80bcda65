"""The forecast of a home's disk."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from coinml.data.records import Dataset, Video
from coinml.ledger import Ledger
from coinml.runtime.settings import Settings
from coinml.upkeep.disk import forecast_disk

GIB = 2**30
DAY_S = 86400


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100 * GIB, 0, size))


def written(path: Path, *, size: int, days_ago: float, now_s: float) -> None:
    """A sparse file of that size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    os.utime(path, (now_s - days_ago * DAY_S,) * 2)


def test_what_was_written_in_a_week_says_when_the_disk_is_full(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, 20 * GIB)
    now_s = time.time()
    assert forecast_disk(settings, now_s=now_s).days_left is None
    models = settings.artifact_root / "1" / "models"
    for day in range(30):
        written(models / f"m-{day}", size=GIB // 2, days_ago=day + 0.5, now_s=now_s)
    found = forecast_disk(settings, now_s=now_s)
    assert found.sizes_bytes["artifacts"] == 15 * GIB
    assert found.bytes_per_day == GIB / 2
    assert found.days_left == 40
    assert not found.low
    free(monkeypatch, 11 * GIB)
    found = forecast_disk(settings, now_s=now_s)
    assert found.low
    assert "11.0 GiB free" in str(found)
    assert "0.50 GiB a day: full in 22 days" in str(found)


def test_a_database_grows_by_its_mean(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 20 * GIB)
    now_s = time.time()
    written(settings.logs_dir / "coinml.log", size=0, days_ago=100, now_s=now_s)
    written(settings.data_dir / "prefect" / "prefect.db", size=GIB, days_ago=0, now_s=now_s)
    assert forecast_disk(settings, now_s=now_s).bytes_per_day == pytest.approx(GIB / 100)


def test_videos_to_come_are_counted_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, 20 * GIB)
    videos = tuple(
        Video(video_id=f"v{n}", label="A", subset="training", split="train") for n in range(4)
    )
    with Ledger(settings.ledger_url) as ledger:
        ledger.register(Dataset(name="coin", videos=videos))
    with sqlite3.connect(settings.data_dir / "ledger.db") as connection:
        connection.execute(
            "UPDATE videos SET state = 'downloaded', size_bytes = ? WHERE video_id = 'v0'",
            (6 * GIB,),
        )
    found = forecast_disk(settings)
    assert found.videos_bytes == 18 * GIB
    assert found.low
