"""The registered model: self-contained, with one answer per row even for bad files."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from coinml.encoder.clip_encoder import ClipEncoder
from coinml.errors import InvalidInputError, LocalError, RegistryError
from coinml.registry.predict import predict_files
from coinml.registry.versions import version_at
from coinml.tracking.mlflow_store import MlflowStore
from tests.helpers.kitchen_dataset import EmbeddedDataset, Trained, train

REPOSITORY = Path(__file__).resolve().parents[3]

# A client's program; the checkout, which the editable install put on the path, is removed
# first.
ELSEWHERE = """
import json, sys
repository = sys.argv[1]
sys.path = [entry for entry in sys.path if entry != repository]
import mlflow, pandas as pd
try:
    import coinml
except ModuleNotFoundError:
    pass
else:
    raise SystemExit(f"coinml is at {coinml.__file__}")
mlflow.set_tracking_uri(sys.argv[2])
model = mlflow.pyfunc.load_model("models:/kitchen-task@champion")
answers = model.predict(pd.DataFrame({"video": sys.argv[3:]}))
import coinml
print(json.dumps({"coinml": coinml.__file__, "rows": answers.to_dict(orient="records")}))
"""


def test_the_model_predicts_in_another_folder_and_process_without_coinml_installed(
    trained: Trained, tmp_path: Path
) -> None:
    assert not (trained.home / "encoder").exists()
    video = next(iter(trained.material.videos.values()))
    shutil.copyfile(video, tmp_path / "holiday.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"not a video at all" * 50)
    files = ["holiday.mp4", "broken.mp4", "missing.mp4"]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "COINML_HOME")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", ELSEWHERE, str(REPOSITORY), trained.store.uri, *files],
        cwd=tmp_path,
        env=environment | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert not Path(said["coinml"]).is_relative_to(REPOSITORY / "coinml")
    good, broken, missing = said["rows"]
    assert good["label"] == "Boil"
    assert good["error"] is None
    assert broken["label"] is None
    assert "broken.mp4" in broken["error"]
    assert missing["error"] == "missing.mp4: no such file"
    assert done.stderr == ""


def test_serving_reproduces_the_predictions_of_training(trained: Trained, champion: Any) -> None:
    version = version_at(trained.store, "kitchen-task", "champion")
    assert version is not None
    recorded = trained.store.read_table(version.run_id, "predictions").set_index("video_id")
    recorded = recorded[recorded["split"] == "test"]
    assert len(recorded) == 6
    files = [str(trained.material.videos[video_id]) for video_id in recorded.index]
    answers = champion.predict(pd.DataFrame({"video": files}))
    assert list(answers["label"]) == list(recorded["predicted"])
    np.testing.assert_allclose(answers["score"].astype(float), recorded["score"], atol=2e-3)


def test_top5_is_sorted_and_starts_with_the_label(trained: Trained, champion: Any) -> None:
    video = next(iter(trained.material.videos.values()))
    (row,) = champion.predict(pd.DataFrame({"video": [str(video)]})).to_dict(orient="records")
    assert list(row) == ["label", "score", "top5", "error"]
    scores = [entry["score"] for entry in row["top5"]]
    assert row["top5"][0]["label"] == row["label"]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 3
    assert sum(scores) == pytest.approx(1, abs=1e-4)


def test_bad_rows_do_not_affect_the_others(trained: Trained, champion: Any, tmp_path: Path) -> None:
    videos = list(trained.material.videos.values())
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(videos[0].read_bytes()[:300])
    (tmp_path / "empty.mp4").touch()
    rows = [
        {"video": str(videos[0])},
        {"video": str(broken)},
        {"video": "/nowhere/at/all.mp4"},
        {"video": "x" * 5000},
        {"video": str(tmp_path)},
        {"video": str(tmp_path / "empty.mp4")},
        {"video": None},
        {"video": str(videos[-1])},
    ]
    answers = champion.predict(pd.DataFrame(rows)).to_dict(orient="records")
    assert len(answers) == len(rows)
    assert [row["error"] is None for row in answers] == [True, *[False] * 6, True]
    assert (answers[0]["label"], answers[-1]["label"]) == ("Boil", "Fry")
    assert all(row["label"] is None and row["top5"] == [] for row in answers[1:-1])
    assert answers[6]["error"] == "neither 'video' nor 'video_base64' is given"


def test_scores_are_numbers_that_pandas_can_rank(
    trained: Trained, champion: Any, tmp_path: Path
) -> None:
    videos = [str(path) for path in list(trained.material.videos.values())[:3]]
    answers = champion.predict(pd.DataFrame({"video": [videos[0], "missing.mp4", *videos[1:]]}))
    assert answers["score"].dtype == np.float64
    best = answers.nlargest(2, "score")
    assert list(best["score"]) == sorted(answers["score"].dropna(), reverse=True)[:2]
    assert answers["score"].isna().tolist() == [False, True, False, False]
    failed = champion.predict(pd.DataFrame({"video": ["missing.mp4"]}))
    assert (failed["score"].dtype, failed["label"][0]) == (np.float64, None)


def test_a_path_may_be_a_pathlib_path(trained: Trained, champion: Any) -> None:
    video = trained.material.videos["Cut0_______"]
    answers = champion.predict(pd.DataFrame({"video": [video, str(video), np.str_(video)]}))
    assert list(answers["error"]) == [None] * 3
    assert list(answers["label"]) == ["Cut"] * 3


@pytest.mark.parametrize(
    "value", [b"a.mp4", 3, 2.5, ["a.mp4"], {"path": "a.mp4"}, np.zeros((2, 4, 4, 3)), object()]
)
def test_another_value_than_a_path_is_that_rows_error(
    value: object, trained: Trained, champion: Any
) -> None:
    video = trained.material.videos["Cut0_______"]
    for column in ("video", "video_base64"):
        rows = [{column: value}, {column: "text"}, {"video": video}]
        answers = champion.predict(pd.DataFrame(rows, dtype=object)).to_dict(orient="records")
        assert f"'{column}' is " in answers[0]["error"]
        # pandas makes floats of integers beside a missing value.
        kinds = ("int", "float") if isinstance(value, int) else (type(value).__name__,)
        assert any(f"({kind})" in answers[0]["error"] for kind in kinds)
        assert "pathlib.Path" in answers[0]["error"] or "b64encode" in answers[0]["error"]
        assert len(answers[0]["error"]) < 300
        assert (answers[2]["label"], answers[2]["error"]) == ("Cut", None)


def test_a_column_of_numbers_is_refused_by_its_name(champion: Any) -> None:
    with pytest.raises(MlflowException, match="column video"):
        champion.predict(pd.DataFrame({"video": [3]}))


@pytest.mark.parametrize("absent", [None, pd.NA, ""])
def test_an_absent_value_is_said_to_be_absent(absent: object, champion: Any) -> None:
    (answer,) = champion.predict(pd.DataFrame({"video": [absent]})).to_dict(orient="records")
    assert answer["error"] == "neither 'video' nor 'video_base64' is given"


@pytest.mark.parametrize(
    "given", ["a.mp4", ["a.mp4"], [["a.mp4"]], [Path("a.mp4")], np.array(["a.mp4"]), b"bytes", 3]
)
def test_what_is_no_table_is_refused_in_words_that_say_what_is_taken(
    given: object, champion: Any
) -> None:
    with pytest.raises(InvalidInputError, match="a pandas DataFrame with one of the columns"):
        champion.predict(given)


def test_a_video_can_be_sent_as_base64(trained: Trained, champion: Any) -> None:
    video = trained.material.videos["Cut0_______"]
    text = base64.b64encode(video.read_bytes()).decode()
    answers = champion.predict(pd.DataFrame({"video_base64": [text, "no base64!", ""]}))
    assert answers["label"][0] == "Cut"
    assert "not base64" in answers["error"][1]
    assert "neither" in answers["error"][2]


def test_a_table_without_a_video_column_is_refused(champion: Any) -> None:
    with pytest.raises(InvalidInputError, match="'video_base64' is needed"):
        champion.predict(pd.DataFrame({"film": ["a.mp4"]}))


def test_an_empty_table_gets_an_empty_answer(champion: Any) -> None:
    answers = champion.predict(pd.DataFrame({"video": pd.Series([], dtype=str)}))
    assert len(answers) == 0
    assert list(answers.columns) == ["label", "score", "top5", "error"]
    assert answers["score"].dtype == np.float64


@pytest.mark.parametrize("head", ["attentive", "knn"])
def test_every_kind_of_head_reproduces_its_training_predictions(
    head: str, store: MlflowStore, material: EmbeddedDataset
) -> None:
    report = train(head, store, material, options={"epochs": 40} if head == "attentive" else {})
    assert (report.head, report.version) == (head, 1)
    store.client()
    model = mlflow.pyfunc.load_model("models:/kitchen-task/1", suppress_warnings=True)
    videos = {video_id: material.videos[video_id] for video_id in list(material.videos)[::4]}
    answers = model.predict(pd.DataFrame({"video": [str(path) for path in videos.values()]}))
    recorded = store.read_table(report.run_id, "predictions").set_index("video_id")
    assert len(videos) == 7
    assert list(answers["label"]) == list(recorded.loc[list(videos), "predicted"])
    scores = recorded.loc[list(videos), "score"].to_numpy(dtype=float)
    assert answers["score"].to_numpy(dtype=float) == pytest.approx(scores, abs=1e-3)


def test_more_videos_than_workers_are_answered_in_order(trained: Trained, champion: Any) -> None:
    videos = trained.material.videos
    answers = champion.predict(pd.DataFrame({"video": [str(path) for path in videos.values()]}))
    assert len(answers) == 27
    assert answers["error"].isna().all()
    right = [id_.startswith(label) for id_, label in zip(videos, answers["label"], strict=True)]
    assert sum(right) >= 24


def test_videos_are_encoded_as_in_embedding_equal_clips_once_and_in_small_batches(
    champion: Any,
    make_video: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    threads: set[str] = set()
    encode = ClipEncoder.encode_prepared

    def counting(self: ClipEncoder, clips: list[Any], **options: int) -> np.ndarray:
        sizes.append(len(clips))
        threads.add(threading.current_thread().name)
        return encode(self, clips, **options)

    monkeypatch.setattr(ClipEncoder, "encode_prepared", counting)
    short = make_video(tmp_path / "short.mp4", seconds=0.3)
    answers = champion.predict(pd.DataFrame({"video": [str(short)] * 4}))
    assert answers["error"].isna().all()
    # Each of them has several clips of the same frames.
    assert champion.unwrap_python_model()._clip_spec.clips > 1
    assert sum(sizes) == 4
    assert all(name.startswith("encode") for name in threads)


def test_a_batch_that_fails_is_the_error_of_its_videos(
    trained: Trained, champion: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = ClipEncoder.encode_prepared
    calls: list[int] = []

    def fails_once(self: ClipEncoder, clips: list[Any], **options: int) -> np.ndarray:
        calls.append(len(clips))
        if len(calls) == 1:
            raise LocalError("not even one clip fits the memory of the device")
        return encode(self, clips, **options)

    monkeypatch.setattr(ClipEncoder, "encode_prepared", fails_once)
    files = [str(path) for path in list(trained.material.videos.values())[:12]]
    errors = champion.predict(pd.DataFrame({"video": files}))["error"]
    failed = errors.dropna()
    assert 1 <= len(failed) < 12
    assert set(failed) == {"not even one clip fits the memory of the device"}


def test_loading_a_model_does_not_change_sys_path(trained: Trained) -> None:
    before = list(sys.path)
    predict_files(trained.store, "models:/kitchen-task@champion", [])
    assert sys.path == before


def test_predict_files_uses_the_champion_and_returns_plain_values(trained: Trained) -> None:
    video = trained.material.videos["Fry0_______"]
    rows = predict_files(
        trained.store, "models:/kitchen-task@champion", [str(video), "missing.mp4"]
    )
    assert json.loads(json.dumps(rows)) == rows
    assert [list(row) for row in rows] == [["video", "label", "score", "top5", "error"]] * 2
    assert rows[0]["video"] == str(video)
    assert rows[0]["label"] == "Fry"
    assert (rows[1]["label"], rows[1]["score"], rows[1]["top5"]) == (None, None, [])


def test_predict_files_names_a_missing_model(trained: Trained) -> None:
    for uri in ("models:/coin-task@champion", "models:/kitchen-task/99", "nonsense"):
        with pytest.raises(RegistryError, match=uri):
            predict_files(trained.store, uri, ["a.mp4"])
