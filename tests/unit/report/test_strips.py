"""Film strips in the report: which videos get one, and how many bytes they may take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from coinml.data.records import Dataset, Video
from coinml.data.targets import examples
from coinml.ledger import FileFacts, Ledger
from coinml.report import strips as module
from coinml.report.gathering import ReportData
from coinml.report.strips import with_strips
from coinml.report.view import page_points, page_view


@pytest.fixture
def data(tmp_path: Path, make_video: Callable[..., Path]) -> ReportData:
    """Four videos: one right, two wrong, the last of them missing, and a suspect of an audit."""
    names = ("right", "wrong", "suspect", "missing")
    videos = tuple(
        Video(video_id=name, label="a", subset="testing", split="test") for name in names
    )
    dataset = Dataset(name="toy", videos=videos)
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        ledger.register(dataset)
        for name in names[:3]:
            path = str(make_video(tmp_path / f"{name}.mp4", seconds=0.5))
            facts = FileFacts(path=path, size_bytes=1, sha256=name)
            ledger.record_success("toy", name, file=facts, attempt=None)
        rows = {row.video_id: row for row in ledger.rows("toy")}
        status = ledger.status("toy")
    predictions = pd.DataFrame(
        {
            "video_id": names,
            "split": "test",
            "label": "a",
            "predicted": ["a", "b", "a", "b"],
            "score": [0.9, 0.8, 0.7, 0.95],
        }
    )
    return ReportData(
        dataset=dataset,
        model="toy-task",
        made_at=datetime.now(UTC),
        status=status,
        ledger_digest="",
        heads=(),
        predictions={1: predictions},
        comparison=None,
        domains={},
        spec=None,
        table=predictions[["video_id", "split", "label"]],
        videos=rows,
        links={},
        missing=(),
        audit={"suspects": predictions[["video_id"]][2:3]},
    )


def strip_names(data: ReportData, most: int) -> list[str]:
    return list(with_strips(data, examples(data.dataset.videos), most=most).strips)


def test_suspects_come_first_then_wrong_videos_then_others(data: ReportData) -> None:
    assert strip_names(data, 10) == ["suspect", "wrong", "right"]
    assert strip_names(data, 2) == ["suspect", "wrong"]
    assert strip_names(data, 0) == []


def test_all_strips_together_have_a_bound(
    data: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = with_strips(data, examples(data.dataset.videos), most=10).strips
    monkeypatch.setattr(module, "MOST_BYTES", len(whole["suspect"]) + 1)
    assert strip_names(data, 10) == ["suspect"]


def test_a_file_that_cannot_be_read_has_no_picture(data: ReportData) -> None:
    Path(str(data.videos["wrong"].path)).write_bytes(b"nothing")
    found = with_strips(data, examples(data.dataset.videos), most=10)
    assert found.strips["wrong"] == b""
    points = page_points(found, None, title_of=str, link_of=lambda _: "")
    assert set(page_view(found, points, None, ["a", "b"])["strips"]) == {"suspect", "right"}


def test_without_embeddings_the_points_are_the_predicted_videos(data: ReportData) -> None:
    points = page_points(replace(data, table=None), None, title_of=str, link_of=lambda _: "")
    assert [point["id"] for point in points] == ["right", "wrong", "suspect", "missing"]
