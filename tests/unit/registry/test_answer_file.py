"""`coinml predict --out` and `--precision`: whole files, and answers that are not accepted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from typer.testing import CliRunner, Result

from coinml.errors import CoinmlError, InvalidInputError, RegistryError
from coinml.registry.abstention import abstention_threshold
from coinml.registry.answer_file import check_answer_file, named_videos, write_answers
from coinml.tracking.mlflow_store import MlflowStore
from coinml_cli.app import app
from tests.helpers.kitchen_dataset import Trained

CHAMPION = "models:/kitchen-task@champion"


@pytest.fixture
def clips(trained: Trained, tmp_path: Path) -> Path:
    """A folder with two videos, a broken one and what is no video."""
    folder = tmp_path / "clips"
    (folder / "more").mkdir(parents=True)
    shutil.copyfile(trained.material.videos["Cut0_______"], folder / "cut.mp4")
    shutil.copyfile(trained.material.videos["Fry0_______"], folder / "more" / "=fry.mp4")
    (folder / "broken.mp4").write_bytes(b"not a video at all" * 50)
    (folder / "._cut.mp4").write_bytes(b"")
    (folder / "notes.txt").write_text("nothing")
    return folder


def predict(trained: Trained, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Result:
    monkeypatch.setenv("COINML_HOME", str(trained.home))
    return CliRunner().invoke(app, ["predict", "--model", CHAMPION, *map(str, arguments)])


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_folder_becomes_a_table_with_the_reason_of_each_failure(
    ending: str, trained: Trained, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / f"predictions.{ending}"
    run = predict(trained, monkeypatch, clips, "missing.mp4", "--out", out)
    assert run.exit_code == 0, run.output
    assert "2 of 4 videos classified" in run.stdout
    assert "missing.mp4: no such file" in run.stdout
    table = pd.read_csv(out) if ending == "csv" else pd.read_parquet(out)
    assert list(table.columns) == ["video", "label", "score", "top5", "error"]
    assert [Path(name).name for name in table["video"]] == [
        "broken.mp4",
        "cut.mp4",
        "=fry.mp4",
        "missing.mp4",
    ]
    assert table["score"].dtype == "float64"
    assert table["label"].isna().tolist() == [True, False, False, True]
    assert table["error"].isna().tolist() == [False, True, True, False]
    assert table["label"][1] == "Cut"
    top = table["top5"][1]
    assert (json.loads(top) if ending == "csv" else top)[0]["label"] == "Cut"
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_files_without_a_failure_have_the_same_columns(tmp_path: Path) -> None:
    answer = {"video": "a.mp4", "label": "Cut", "score": 0.5, "top5": [], "error": None}
    for name in ("a.csv", "a.parquet"):
        write_answers([answer], tmp_path / name)
    table = pd.read_parquet(tmp_path / "a.parquet")
    assert pd.api.types.is_string_dtype(table["error"])
    assert table["error"].isna().all()
    assert (tmp_path / "a.csv").read_text() == "video,label,score,top5,error\na.mp4,Cut,0.5,[],\n"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("predictions.xlsx", ".csv or .parquet"),
        ("predictions", ".csv or .parquet"),
        ("nowhere/predictions.csv", "no folder"),
        ("there.csv", "--force"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    name: str, says: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there.csv").write_text("mine")
    with pytest.raises(InvalidInputError, match=says):
        check_answer_file(tmp_path / name)
    run = predict(trained, monkeypatch, "missing.mp4", "--out", tmp_path / name)
    assert isinstance(run.exception, InvalidInputError)
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_a_file_is_replaced_only_by_force(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "there.csv"
    out.write_text("mine")
    run = predict(trained, monkeypatch, "missing.mp4", "--out", out, "--force")
    assert run.exit_code == 0
    assert "no such file" in out.read_text()


def test_a_folder_without_videos_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InvalidInputError, match="no video file in it"):
        named_videos([tmp_path])


def test_videos_named_twice_are_taken_once(clips: Path) -> None:
    files, notes = named_videos([clips / "cut.mp4", clips])
    assert files.count(str(clips / "cut.mp4")) == 1
    assert len(files) == 3
    assert "hidden or generated" in notes[0]


@pytest.fixture
def with_val(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """Of 100 val videos, the 80 with a score of 0.4 or more are right.

    Made up, since the drawn dataset has six val videos, which show no precision.
    """
    val = pd.DataFrame(
        {
            "video_id": [f"v{number:03d}" for number in range(100)],
            "split": "val",
            "label": "Cut",
            "predicted": ["Cut"] * 80 + ["Fry"] * 20,
            "score": [0.4] * 80 + [0.2] * 20,
        }
    )
    monkeypatch.setattr(MlflowStore, "read_table", lambda *_: val)
    return val


def test_only_answers_with_the_score_are_accepted(
    with_val: pd.DataFrame,
    trained: Trained,
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "predictions.csv"
    run = predict(trained, monkeypatch, clips, "--precision", 0.95, "--out", out, "--json")
    assert run.exit_code == 0, run.output
    said = " ".join(run.stderr.split())
    assert "from 100 videos, of which 80 have such a score and 80 of these are right" in said
    rows = json.loads(run.stdout)
    assert [row["accepted"] for row in rows] == [
        row["score"] is not None and row["score"] >= 0.4 for row in rows
    ]
    assert pd.read_csv(out)["accepted"].tolist() == [row["accepted"] for row in rows]
    with_val["score"] = 1.5
    with_val["predicted"] = "Cut"
    run = predict(trained, monkeypatch, clips, "--precision", 0.95)
    assert "no" in run.stdout.split("cut.mp4")[1]
    run = predict(trained, monkeypatch, clips, "--precision", 0.95, "--out", out, "--force")
    assert "2 of 3 videos classified, 2 of them not accepted" in run.stdout


def test_a_precision_that_val_does_not_show_is_refused_with_what_it_shows(
    trained: Trained, with_val: pd.DataFrame
) -> None:
    with pytest.raises(InvalidInputError, match=r"100 val videos.*299 best.*They show 0\.96"):
        abstention_threshold(trained.store, CHAMPION, 0.99)
    with_val["predicted"] = "Fry"
    with pytest.raises(InvalidInputError, match=r"no precision of 0\.5 or more"):
        abstention_threshold(trained.store, CHAMPION, 0.9)


def test_a_model_carries_what_val_showed_and_abstains_as_the_command_does(
    trained: Trained, champion: Any, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(map(str, clips.rglob("*.mp4")))[1:]
    asked = pd.DataFrame({"video": files})
    # All six val videos are answered right, which shows a precision of a half.
    accepted = champion.predict(asked, params={"precision": 0.5})["accepted"]
    run = predict(trained, monkeypatch, *files, "--precision", 0.5, "--json")
    assert [row["accepted"] for row in json.loads(run.stdout)] == accepted.tolist()
    assert accepted.dtype == bool
    assert accepted.tolist() == [False, True, True]
    assert "accepted" not in champion.predict(asked)
    for precision in (0.95, 1.0, float("nan")):
        with pytest.raises(MlflowException, match=f"precision {precision:g}: ") as refused:
            champion.predict(asked, params={"precision": precision})
        assert refused.value.get_http_status_code() == 400
    with pytest.raises(InvalidInputError, match="the 6 val videos of this model"):
        champion.predict(asked, params={"precision": 0.95})


def test_a_training_records_the_thresholds_of_some_precisions(trained: Trained) -> None:
    table = trained.store.read_table(trained.reports["svm"].run_id, "abstention")
    assert table["precision"].tolist() == [0.8, 0.9, 0.95, 0.98, 0.99]
    assert (table["videos"] == 6).all()
    assert table["score"].isna().all()


def test_six_val_videos_show_next_to_nothing(trained: Trained) -> None:
    with pytest.raises(InvalidInputError, match="the 6 val videos of models:/kitchen-task@champi"):
        abstention_threshold(trained.store, CHAMPION, 0.95)


def test_segments_of_one_video_count_once(trained: Trained, with_val: pd.DataFrame) -> None:
    with_val["of_video"] = [f"v{number // 20}" for number in range(100)]
    with pytest.raises(InvalidInputError, match="the 5 val videos"):
        abstention_threshold(trained.store, CHAMPION, 0.95)
    # Videos of one person are as little independent, whatever segments each has.
    with_val["group"] = [f"p{number // 25}" for number in range(100)]
    with pytest.raises(InvalidInputError, match="the 4 val videos"):
        abstention_threshold(trained.store, CHAMPION, 0.95)


@pytest.mark.parametrize(
    ("uri", "precision", "error"),
    [
        (CHAMPION, 1.0, InvalidInputError),
        (CHAMPION, 0.0, InvalidInputError),
        ("models:/kitchen-task@nobody", 0.9, RegistryError),
        ("models:/kitchen-task/99", 0.9, RegistryError),
        ("runs:/abc/model", 0.9, RegistryError),
    ],
)
def test_wrong_precisions_and_models_are_named(
    uri: str, precision: float, error: type[CoinmlError], trained: Trained
) -> None:
    with pytest.raises(error, match=r"precision|models:|kitchen-task"):
        abstention_threshold(trained.store, uri, precision)
