"""The attrition report and its figure, from a real ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from coinml.collection.attrition import attrition_key, attrition_markdown
from coinml.data.records import Dataset, Video
from coinml.faults.classification import Fault
from coinml.figures import attrition, style
from coinml.ledger import FileFacts, Ledger, Status


@pytest.fixture
def status(tmp_path: Path) -> Status:
    videos = tuple(
        Video(
            video_id=f"video{number:06d}",
            label="Boil|Egg" if number % 2 else "FrySteak",
            subset="testing" if number % 4 == 0 else "training",
            split="test" if number % 4 == 0 else "train",
        )
        for number in range(40)
    )
    faults = (Fault.GONE, Fault.RESTRICTED, Fault.GONE)
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        ledger.register(Dataset(name="toy", videos=videos))
        for video, fault in zip(videos[1::2], faults, strict=False):
            ledger.record_fault(
                "toy", video.video_id, fault=fault, message="no", next_attempt_at=None, attempt=None
            )
        for video in videos[20:]:
            facts = FileFacts(path=f"/{video.video_id}", size_bytes=1, sha256=video.video_id)
            ledger.record_success("toy", video.video_id, file=facts, attempt=None)
        return ledger.status("toy", rate_per_hour=10)


def test_the_report_counts_downloaded_lost_and_possible_videos(status: Status) -> None:
    page = attrition_markdown(status, duplicates=2, sources={"youtube.com": 19, "/copies": 1})
    assert "| /copies | 1 |" in page
    assert "By source" not in attrition_markdown(status, sources={"youtube.com": 20})
    assert "20 of 40 videos are downloaded (50.0%), 17 are still possible, 3 are lost." in page
    assert "| gone | 2 | 5.0% |" in page
    assert "2 files have the content of another video." in page
    assert "About 1.7 hours to go" in page
    rows = [line for line in page.splitlines() if line.startswith(("| Boil", "| Fry"))]
    assert rows == ["| Boil\\|Egg | 20 | 10 | 3 | 7 |", "| FrySteak | 20 | 10 | 0 | 10 |"]


@pytest.mark.parametrize(
    ("dataset", "key"),
    [
        ("coin", "attrition-coin"),
        ("My Clips_2", "attrition-my-clips-2"),
        ("é", "attrition-dataset"),
    ],
)
def test_the_key_is_valid_for_a_prefect_artifact(dataset: str, key: str) -> None:
    assert attrition_key(dataset) == key


def test_the_figure_shows_every_state_and_the_worst_class_first(
    status: Status, tmp_path: Path
) -> None:
    figure = attrition.attrition(status, title="toy")
    states, classes = figure.axes
    assert [label.get_text() for label in states.get_yticklabels()] == [
        "downloaded",
        "gone",
        "restricted",
        "pending",
    ]
    assert [label.get_text() for label in classes.get_yticklabels()] == [
        "Boil|Egg (20)",
        "FrySteak (20)",
    ]
    style.save(figure, tmp_path / "attrition.png")
    assert (tmp_path / "attrition.png").stat().st_size > 5_000
