"""Targets: examples with their classes, splits and extents."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinml.data.annotations import load_dataset, read_coin
from coinml.data.records import Step, Video
from coinml.data.targets import (
    domains_of_classes,
    examples,
    extent_of,
    official_sizes,
    require_spans,
    spans,
    step_names,
    target_of,
)
from coinml.embedding.jobs import count_done, key_of, plan_jobs
from coinml.embedding_sets.options import SetOptions
from coinml.embedding_sets.table import build_table, clips_by_video, sample_ids, split_samples
from coinml.errors import InvalidInputError
from coinml.evaluation.class_counts import class_counts, scarce_classes
from coinml.ledger import LedgerRow


def step(step_id: str, start_s: float, end_s: float, label: str = "pour") -> Step:
    return Step(step_id=step_id, label=label, start_s=start_s, end_s=end_s)


def video(video_id: str = "a", **fields: Any) -> Video:
    given: dict[str, Any] = {"label": "Tea", "subset": "training", "split": "train"}
    return Video(video_id=video_id, **given | fields)


TWO_STEPS = video(
    steps=(step("1", 2.0, 4.0), step("2", 5.0, 9.5, "stir")), start_s=1.0, end_s=9.0, domain="Drink"
)


def embedded(rows: list[tuple[str, float | None, float | None]]) -> pd.DataFrame:
    """Rows of an embedding set; the one feature is the row's number."""
    table = pd.DataFrame(rows, columns=["video_id", "start_s", "end_s"])
    return table.assign(e0000=np.arange(len(rows), dtype=np.float32))


def test_spans_of_each_extent() -> None:
    assert spans(TWO_STEPS, "video") == [(None, None)]
    assert spans(TWO_STEPS, "segments") == [(2.0, 4.0), (5.0, 9.5)]
    # From the earlier start (the video's) to the later end (the last step's).
    assert spans(TWO_STEPS, "annotated") == [(1.0, 9.5)]
    assert spans(video(steps=TWO_STEPS.steps), "annotated") == [(2.0, 9.5)]
    assert spans(video(start_s=1.0, end_s=2.0), "annotated") == [(1.0, 2.0)]
    assert spans(video(), "annotated") == spans(video(), "segments") == []
    same = video(steps=(step("1", 0.0, 1.0), step("2", 0.0, 1.0)))
    assert spans(same, "segments") == [(0.0, 1.0)]


def test_step_classes_are_labels_with_ids() -> None:
    other = video("b", split="test", steps=(step("7", 0.0, 3.0),))
    found = examples([TWO_STEPS, other, video("c")], target="step")
    assert [(one.sample_id, one.label, one.split, one.span) for one in found] == [
        ("a#1", "pour (1)", "train", (2.0, 4.0)),
        ("a#2", "stir (2)", "train", (5.0, 9.5)),
        ("b#1", "pour (7)", "test", (0.0, 3.0)),
    ]
    assert official_sizes(found) == {"train": 2, "val": 0, "test": 1}


def test_domains_need_a_taxonomy() -> None:
    assert [one.label for one in examples([TWO_STEPS], target="domain")] == ["Drink"]
    with pytest.raises(InvalidInputError, match=r"1 classes \(Tea\).*taxonomy\.xlsx"):
        examples([TWO_STEPS, video("b")], target="domain")


def test_missing_annotations_are_reported() -> None:
    with pytest.raises(InvalidInputError, match="target step: none"):
        examples([video(), video("b")], target="step")
    with pytest.raises(InvalidInputError, match="extent annotated: none of these 1 videos"):
        require_spans([video()], "annotated")
    assert [one.video_id for one in require_spans([TWO_STEPS, video("b")], "segments")] == ["b"]
    # A video without annotations still counts in the official size.
    found = examples([TWO_STEPS, video("b")], extent="annotated")
    assert official_sizes(found)["train"] == 2


@pytest.mark.parametrize(
    ("target", "extent", "meant"),
    [
        (None, None, "video"),
        ("task", None, "video"),
        ("step", None, "segments"),
        ("step", "segments", "segments"),
        ("domain", "annotated", "annotated"),
        (None, "segments", "segments"),
    ],
)
def test_the_extent_follows_from_the_target(target: Any, extent: Any, meant: str) -> None:
    assert extent_of(target, extent) == meant
    if target is not None:
        assert SetOptions(extent=extent).for_target(target).extent == meant


@pytest.mark.parametrize(
    ("target", "extent", "message"),
    [
        ("step", "video", "contradict"),
        ("task", "segments", "contradict"),
        ("steps", None, "one of task, domain, step"),
        (None, "whole", "one of video, annotated, segments"),
    ],
)
def test_unknown_or_contradicting_targets_and_extents_are_refused(
    target: Any, extent: Any, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        extent_of(target, extent)


def test_a_step_table_has_a_row_per_embedded_segment() -> None:
    rows = [("a", 2.0, 4.0), ("a", 5.0, 9.0), ("b", 0.0, 3.0), ("a", None, None)]
    other = video("b", split="val", steps=(step("7", 0.0, 3.0),))
    table = build_table([TWO_STEPS, other], embedded(rows), target="step")
    # The second segment was embedded with another end, so it does not count.
    assert table.to_dict(orient="list") == {
        "video_id": ["a", "b"],
        "label": ["pour (1)", "pour (7)"],
        "split": ["train", "val"],
        "sample_id": ["a#1", "b#1"],
        "e0000": [0.0, 2.0],
    }
    assert sample_ids(table) == ["a#1", "b#1"]
    whole = build_table([TWO_STEPS, other], embedded(rows))
    assert sample_ids(whole) == ["a"]
    assert whole["e0000"].tolist() == [3.0]
    annotated = embedded([("a", 1.0, 9.0), ("a", 1.0, 9.5)])
    assert build_table([TWO_STEPS], annotated, extent="annotated")["e0000"].tolist() == [1.0]
    with pytest.raises(InvalidInputError, match="two embeddings"):
        build_table([TWO_STEPS], embedded([("a", 1.0, 2.0), ("a", 1.0, 2.0)]))
    with pytest.raises(InvalidInputError, match="none of the dataset's 2 segments"):
        build_table([TWO_STEPS], embedded([("a", None, None)]), target="step")


def test_segments_are_grouped_by_video() -> None:
    videos = [
        video(f"{split}{number}", split=split, steps=(step("1", 0, 1), step("2", 1, 2, "stir")))
        for split in ("train", "val", "test")
        for number in range(2)
    ]
    rows = [(one.video_id, s.start_s, s.end_s) for one in videos for s in one.steps]
    parts = split_samples(build_table(videos, embedded(rows), target="step"))
    assert parts["train"].ids == ("train0#1", "train0#2", "train1#1", "train1#2")
    assert parts["train"].groups == ("train0", "train0", "train1", "train1")
    assert parts["train"].take([0, 1]).videos == 1
    assert (len(parts["test"]), parts["test"].videos) == (4, 2)


def test_clips_are_assigned_to_their_segment() -> None:
    entries = [
        ("a", 5.0, 9.5, 0, 7),
        ("a", 2.0, 4.0, 1, 2),
        ("a", 2.0, 4.0, 0, 1),
        ("a", 5.0, 9.0, 0, 9),
        ("b", None, None, 0, 5),
        ("a", None, None, 0, 6),
    ]
    ids, starts, ends, numbers, values = zip(*entries, strict=True)
    rows = pa.table(
        {
            "video_id": list(ids),
            "file_sha256": ["aa"] * len(ids),
            "start_s": pa.array(starts, pa.float64()),
            "end_s": pa.array(ends, pa.float64()),
            "clip": list(numbers),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(values, pa.float16()), 1),
        }
    )
    steps = clips_by_video(rows, {"a": "aa"}, wanted=examples([TWO_STEPS], target="step"))
    assert {key: part.tolist() for key, part in steps.items()} == {
        "a#1": [[1], [2]],
        "a#2": [[7]],
    }
    whole = clips_by_video(rows, wanted=examples([TWO_STEPS, video("b"), video("c")]))
    assert {key: part.tolist() for key, part in whole.items()} == {"a": [[6]], "b": [[5]]}


def test_classes_with_few_training_videos_are_listed() -> None:
    rows = [("Tea", "train", number) for number in range(6)] + [("Tea", "test", 9)]
    rows += [("Soup", "train", 0)] * 7 + [("Soup", "test", 8), ("Cake", "val", 7)]
    table = pd.DataFrame(
        [(f"{label}{number}", label, split) for label, split, number in rows],
        columns=["video_id", "label", "split"],
    )
    official = [(label, split) for label, split, _ in rows] + [("Lost", "train")]
    counts = class_counts(table, official).set_index("class")
    assert counts["train"].to_dict() == {"Cake": 0, "Lost": 0, "Soup": 7, "Tea": 6}
    # Seven segments of one video count as one video.
    assert counts["train_videos"].to_dict() == {"Cake": 0, "Lost": 0, "Soup": 1, "Tea": 6}
    assert scarce_classes(counts.reset_index()) == ("Soup",)


def test_one_embedding_job_per_span_of_each_downloaded_video() -> None:
    videos = [TWO_STEPS, video("b", steps=(step("7", 0.0, 3.0),)), video("c")]
    files = {"a": ("/a.mp4", "aa"), "c": ("/c.mp4", "cc"), "b": (None, None)}
    nothing = dict.fromkeys(LedgerRow.__dataclass_fields__)
    rows = [
        LedgerRow(**nothing | {"video_id": video_id, "path": path, "sha256": sha256})
        for video_id, (path, sha256) in files.items()
    ]
    jobs = plan_jobs(videos, rows, "segments")
    assert [key_of(job) for job in jobs] == [("a", 2.0, 4.0, "aa"), ("a", 5.0, 9.5, "aa")]
    assert [key_of(job) for job in plan_jobs(videos, rows, "video")] == [
        ("a", None, None, "aa"),
        ("c", None, None, "cc"),
    ]
    assert count_done(jobs, {key_of(jobs[1]), ("a", 2.0, 4.0, "old")}) == {"a": 1}


def test_domains_of_classes_omit_ambiguous_ones() -> None:
    other = video("b", label="Soup", domain="Food", steps=(step("2", 0.0, 1.0, "stir"),))
    videos = [TWO_STEPS, other]
    assert domains_of_classes(videos) == {"Tea": "Drink", "Soup": "Food"}
    # The step "stir" occurs in both domains.
    assert domains_of_classes(videos, target="step") == {"pour (1)": "Drink"}
    assert domains_of_classes(videos, target="domain") == {}
    assert domains_of_classes([video()]) == {}


entries = st.dictionaries(
    st.text("abcXYZ019_-", min_size=1, max_size=11),
    st.tuples(
        st.sampled_from(["training", "testing"]),
        st.lists(
            st.tuples(st.integers(1, 4), st.integers(0, 90), st.integers(1, 30)),
            min_size=1,
            max_size=5,
        ),
    ),
    min_size=1,
    max_size=30,
)


def coin(path: Path, database: dict[str, Any]) -> list[Video]:
    content = {
        video_id: {
            "class": "Tea",
            "subset": subset,
            "annotation": [
                {"id": i, "segment": [start, start + length], "label": f"do {i}"}
                for i, start, length in steps
            ],
        }
        for video_id, (subset, steps) in database.items()
    }
    path.write_text(json.dumps({"database": content}))
    return list(read_coin(path).videos)


@settings(max_examples=30, deadline=None)
@given(entries, st.data())
def test_splits_do_not_depend_on_other_videos_and_segments_stay_together(
    tmp_path_factory: pytest.TempPathFactory, database: dict[str, Any], data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "sides.json"
    some = data.draw(st.lists(st.sampled_from(sorted(database)), min_size=1, unique=True))
    everything = coin(path, database)
    part = coin(path, {video_id: database[video_id] for video_id in some})
    sides = {one.video_id: one.split for one in everything}
    assert {one.video_id: sides[one.video_id] for one in part} == {
        one.video_id: one.split for one in part
    }
    found = examples(everything, target="step")
    assert len({one.sample_id for one in found}) == len(found) > 0
    assert all(one.split == sides[one.video_id] for one in found)
    of_part = {one.sample_id: one for one in examples(part, target="step")}
    assert of_part.items() <= {one.sample_id: one for one in found}.items()
    spans_of = [(one.video_id, *one.span) for one in found]
    table = build_table(everything, embedded(list(dict.fromkeys(spans_of))), target="step")
    assert len(table) == len(found)
    assert (table.groupby("video_id")["split"].nunique() == 1).all()


def test_coin_has_180_tasks_12_domains_and_778_steps(shared_data: Path) -> None:
    videos = load_dataset(str(shared_data / "coin" / "COIN.json")).videos
    found = {
        target: examples(videos, target=target)  # type: ignore[arg-type]
        for target in ("task", "domain", "step")
    }
    sizes = {target: len({one.label for one in ones}) for target, ones in found.items()}
    assert sizes == {"task": 180, "domain": 12, "step": 778}
    with (shared_data / "coin" / "taxonomy_target_action_mapping.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert step_names(videos) == {
        row["Action Id"]: f"{row['Action Label']} ({row['Action Id']})" for row in rows
    }
    twice = Counter(name.rsplit(" (", 1)[0] for name in step_names(videos).values())
    assert sum(count > 1 for count in twice.values()) == 25
    # The annotated extent contains all steps.
    for one in videos:
        ((start_s, end_s),) = spans(one, "annotated")
        assert start_s is not None
        assert end_s is not None
        assert start_s <= one.steps[0].start_s
        assert end_s >= max(s.end_s for s in one.steps)


@pytest.mark.parametrize(
    ("target", "extent", "meant"),
    [
        (None, None, "task"),
        (None, "video", "task"),
        (None, "segments", "step"),
        ("domain", None, "domain"),
        ("domain", "annotated", "domain"),
    ],
)
def test_the_extent_decides_where_no_target_is_named(
    target: str | None, extent: str | None, meant: str
) -> None:
    assert target_of(target, extent) == meant
