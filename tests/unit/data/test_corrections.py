"""Corrections of labels beside the annotations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coinml.data.annotations import load_dataset
from coinml.data.records import Dataset
from coinml.embedding_sets.table import build_table, table_digest
from coinml.errors import InvalidInputError
from coinml.selection import Selection

HEADER = "id,column,old,new,who,why\n"


@pytest.fixture
def coin(tmp_path: Path) -> Path:
    """Three training videos and a test video of two classes."""
    database = {
        video_id: {"class": label, "subset": subset}
        for video_id, label, subset in (
            ("a", "Boil", "training"),
            ("b", "Boil", "training"),
            ("c", "Cut", "training"),
            ("t", "Boil", "testing"),
        )
    }
    path = tmp_path / "COIN.json"
    path.write_text(json.dumps({"database": database}))
    (tmp_path / "taxonomy_domain_target_mapping.csv").write_text(
        "Domains,Targets\nHot,Boil\nCold,Cut\n"
    )
    return path


def correct(coin: Path, *lines: str) -> Dataset:
    (coin.parent / "corrections.csv").write_text(HEADER + "\n".join(lines))
    return load_dataset(str(coin))


def labels(dataset: Dataset) -> dict[str, str]:
    return {video.video_id: video.label for video in dataset.videos}


def test_a_correction_changes_label_domain_and_digest(coin: Path) -> None:
    before = load_dataset(str(coin))
    after = correct(coin, "a,label,Boil,Cut,anna,a knife is seen")
    assert labels(after) == labels(before) | {"a": "Cut"}
    assert {video.domain for video in after.videos if video.label == "Cut"} == {"Cold"}
    assert [video.split for video in after.videos] == [video.split for video in before.videos]
    assert after.notes == ("corrections.csv: labels corrected: 1",)
    embedded = pd.DataFrame({"video_id": list("abct"), "e0000": np.zeros(4, dtype=np.float32)})
    digests = {table_digest(build_table(one.videos, embedded)) for one in (before, after)}
    assert len(digests) == 2


def test_a_test_label_is_flagged_and_stays(coin: Path) -> None:
    before = load_dataset(str(coin))
    after = correct(coin, "t,label,Boil,Cut,anna,looks cut")
    assert after.videos == before.videos
    assert after.notes == (
        "corrections.csv: labels of test videos stay as published; flagged: 1 ('t' as 'Cut')",
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("x,label,Boil,Cut,anna,why", "line 2, column id: coin has no video 'x'"),
        ("a,label,Cut,Boil,anna,why", "line 2, column old: 'Cut', but 'a' is labelled 'Boil'"),
        ("a,label,Boil,Cot,anna,why", "line 2, column new: 'Cot' is no class of coin"),
        (
            "a,label,Boil,Boil,anna,why",
            "line 2, column new: 'Boil' is the old label, too; name another",
        ),
        ("a,split,train,test,anna,why", "line 2, column column: 'split'; only 'label'"),
        ("a,label,Boil,Cut,,why", "line 2, column who: empty"),
        ("a,label,Boil,Cut,anna,", "line 2, column why: empty"),
        (
            "a,label,Boil,Cut,anna",
            "line 2: 5 cells for 6 columns: id 'a', column 'label', old 'Boil', .* none for why;",
        ),
        (
            "a,label,Boil,Cut,anna,w\na,label,Boil,Cut,ben,w",
            "line 3, column id: 'a' is corrected in line 2",
        ),
        ("t,label,Cut,Boil,anna,why", "line 2, column old: 'Cut', but 't'"),
    ],
)
def test_what_does_not_fit_is_named_with_its_line(coin: Path, line: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"corrections\.csv: {says}"):
        correct(coin, line)


def test_a_file_with_other_columns_is_refused(coin: Path) -> None:
    (coin.parent / "corrections.csv").write_text("id,label\na,Cut\n")
    with pytest.raises(InvalidInputError, match="line 1: no column 'column'"):
        load_dataset(str(coin))


def test_a_selection_reads_new_corrections(coin: Path, tmp_path: Path) -> None:
    chosen = Selection(dataset=str(coin))
    assert labels(chosen.load(tmp_path))["a"] == "Boil"
    correct(coin, "a,label,Boil,Cut,anna,why")
    assert labels(chosen.load(tmp_path))["a"] == "Cut"


def test_class_folders_are_corrected_too_and_classes_left_out_are_not(tmp_path: Path) -> None:
    for label in ("adl", "fall", "rest"):
        for number in range(8):
            (tmp_path / "clips" / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / "clips" / label / f"{number}.mp4").write_bytes(b"")
    ref = f"folder:{tmp_path / 'clips'}"
    before = load_dataset(ref)
    ids = {
        label: next(v.video_id for v in before.videos if v.label == label and v.split == "train")
        for label in before.classes
    }
    (tmp_path / "clips" / "corrections.csv").write_text(
        HEADER + f"{ids['fall']},label,fall,adl,anna,sits\n{ids['rest']},label,rest,adl,anna,x\n"
    )
    assert labels(load_dataset(ref))[ids["fall"]] == "adl"
    some = load_dataset(ref, classes=("adl", "fall"))
    assert labels(some)[ids["fall"]] == "adl"
    assert len(some.videos) == 16
