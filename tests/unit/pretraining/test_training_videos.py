"""Only collected videos of the training split are seen."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coinml.data.records import SPLITS, Dataset, Video
from coinml.errors import InvalidInputError
from coinml.ledger import LedgerRow
from coinml.pretraining.training_videos import training_videos

ROW = LedgerRow(
    **dict.fromkeys(LedgerRow.__dataclass_fields__)  # type: ignore[arg-type]
)


def video(number: int, split: str) -> Video:
    subset = "testing" if split == "test" else "training"
    return Video(video_id=f"v{number}", label="a", subset=subset, split=split)  # type: ignore[arg-type]


def row(number: int, split: str, content: int | None) -> LedgerRow:
    file = {} if content is None else {"path": f"/f{number}", "sha256": f"{content:064x}"}
    return replace(ROW, video_id=f"v{number}", split=split, updated_at=datetime.now(UTC), **file)


@given(
    st.lists(
        st.tuples(st.sampled_from(SPLITS), st.sampled_from(SPLITS), st.none() | st.integers(0, 30)),
        max_size=30,
    )
)
def test_no_video_of_val_or_test_is_among_them(
    drawn: list[tuple[str, str, int | None]],
) -> None:
    dataset = Dataset(
        name="d", videos=tuple(video(i, split) for i, (split, _, _) in enumerate(drawn))
    )
    rows = [row(i, recorded, content) for i, (_, recorded, content) in enumerate(drawn)]
    held_out = {one[2] for one in drawn if one[:2] != ("train", "train")}
    wanted = [
        f"v{i}"
        for i, one in enumerate(drawn)
        if one[:2] == ("train", "train") and one[2] is not None and one[2] not in held_out
    ]
    if not wanted:
        with pytest.raises(InvalidInputError, match="none of its training videos is collected"):
            training_videos(dataset, rows)
        return
    found = training_videos(dataset, rows)
    assert [one.video_id for one in found] == sorted(wanted)
    assert all(one.path == f"/f{one.video_id[1:]}" for one in found)


def test_a_video_that_is_not_selected_is_not_seen_and_its_file_may_be_held_out() -> None:
    dataset = Dataset(name="d", videos=(video(0, "train"), video(1, "train")))
    rows = [row(0, "train", 1), row(1, "train", 2), row(2, "test", 2), row(3, "train", 3)]
    assert [one.video_id for one in training_videos(dataset, rows)] == ["v0"]
