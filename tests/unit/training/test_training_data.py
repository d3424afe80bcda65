"""Reading training data from a ledger and an embedding set."""

from __future__ import annotations

from pathlib import Path

import pytest

from coinml.data.records import Dataset, Video
from coinml.embedding_sets import EmbeddingSet
from coinml.errors import InvalidInputError
from coinml.ledger import FileFacts, Ledger
from coinml.training.training_data import load_training_data
from tests.helpers.small_sets import SPEC, rows

DATASET = Dataset(
    name="mini",
    videos=tuple(
        Video(video_id=name, label=label, subset="training", split="train")
        for name, label in (("present", "Boil"), ("replaced", "Cut"), ("lost", "Fry"))
    ),
)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Two videos are present: one as it was embedded, one as another file."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    ledger.register(DATASET)
    for video_id, sha256 in (("present", "aa"), ("replaced", "bb")):
        facts = FileFacts(path=f"/videos/{video_id}.mp4", size_bytes=1, sha256=sha256)
        ledger.record_success("mini", video_id, file=facts, attempt=None)
    return ledger


def test_present_files_are_read_and_lost_classes_stay(ledger: Ledger, tmp_path: Path) -> None:
    embedding_set = EmbeddingSet.open(str(tmp_path / "sets"), "mini", SPEC, create=True)
    embedding_set.append([rows("present"), rows("replaced")])
    data = load_training_data(DATASET, embedding_set, ledger, with_clips=True)
    assert data.table["video_id"].tolist() == ["present"]
    assert data.clips is not None
    assert {name: part.shape for name, part in data.clips.items()} == {"present": (3, 8)}
    assert data.classes == ("Boil", "Cut", "Fry")
    assert data.official_sizes == {"train": 3, "val": 0, "test": 0}
    assert data.ledger_digest == ledger.digest("mini")
    assert data.sha256s == {"present": "aa", "replaced": "bb"}
    assert load_training_data(DATASET, embedding_set, ledger).clips is None


def test_a_set_without_present_files_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    embedding_set = EmbeddingSet.open(str(tmp_path / "sets"), "mini", SPEC, create=True)
    embedding_set.append([rows("replaced")])
    with pytest.raises(InvalidInputError, match="collect and embed first"):
        load_training_data(DATASET, embedding_set, ledger)
