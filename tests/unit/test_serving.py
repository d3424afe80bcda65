"""The registered model: it stands alone, and one bad file is one bad row."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from kitchen import Material, Trained, train

from coinml.errors import InvalidInputError, RegistryError
from coinml.predicting import predict_files
from coinml.registry import register, version_at
from coinml.tracking import Store

REPOSITORY = Path(__file__).resolve().parents[2]

# What a stranger would write; the checkout, which the editable install put on the path, is
# taken off it first.
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


@pytest.fixture(scope="module")
def champion(trained: Trained) -> Any:
    trained.store.client()
    return mlflow.pyfunc.load_model("models:/kitchen-task@champion", suppress_warnings=True)


@pytest.fixture
def model_folder(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the champion's files, to be tampered with."""
    trained.store.client()
    version = version_at(trained.store, "kitchen-task", "champion")
    assert version is not None
    return Path(mlflow.artifacts.download_artifacts(version.source, dst_path=str(tmp_path)))


def test_the_model_answers_in_another_folder_and_process_without_anything_of_ours(
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


def test_serving_sees_what_training_saw(trained: Trained, champion: Any) -> None:
    version = version_at(trained.store, "kitchen-task", "champion")
    assert version is not None
    recorded = trained.store.read_table(version.run_id, "predictions").set_index("video_id")
    recorded = recorded[recorded["split"] == "test"]
    assert len(recorded) == 6
    files = [str(trained.material.videos[video_id]) for video_id in recorded.index]
    answers = champion.predict(pd.DataFrame({"video": files}))
    assert list(answers["label"]) == list(recorded["predicted"])
    np.testing.assert_allclose(answers["score"].astype(float), recorded["score"], atol=2e-3)


def test_the_five_best_come_best_first_and_begin_with_the_answer(
    trained: Trained, champion: Any
) -> None:
    video = next(iter(trained.material.videos.values()))
    (row,) = champion.predict(pd.DataFrame({"video": [str(video)]})).to_dict(orient="records")
    assert list(row) == ["label", "score", "top5", "error"]
    scores = [entry["score"] for entry in row["top5"]]
    assert row["top5"][0]["label"] == row["label"]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 3
    assert sum(scores) == pytest.approx(1, abs=1e-4)


def test_bad_rows_leave_the_others_alone(trained: Trained, champion: Any, tmp_path: Path) -> None:
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


def test_a_video_may_come_as_base64(trained: Trained, champion: Any) -> None:
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


def test_behind_a_server_only_files_below_the_root_are_read(
    trained: Trained, champion: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    outside = trained.material.videos["Cut0_______"]
    shutil.copyfile(outside, root / "inside.mp4")
    (root / "link.mp4").symlink_to(outside)
    monkeypatch.setenv("COINML_SERVE_ROOT", str(root))
    asked = [root / "inside.mp4", outside, root / "link.mp4", root / ".." / outside.name]
    answers = champion.predict(pd.DataFrame({"video": [str(path) for path in asked]}))
    assert answers["label"][0] == "Cut"
    assert all("not below COINML_SERVE_ROOT" in error for error in answers["error"][1:])


@pytest.mark.parametrize("head", ["attentive", "knn"])
def test_every_kind_of_head_answers_as_it_did_in_training(
    head: str, store: Store, material: Material
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


def test_another_encoder_than_the_one_trained_with_is_refused(model_folder: Path) -> None:
    processor = next((model_folder / "artifacts").rglob("preprocessor_config.json"))
    content = json.loads(processor.read_text())
    processor.write_text(json.dumps(content | {"image_mean": [0.5, 0.5, 0.5]}))
    with pytest.raises(RegistryError, match=r"was trained with encoder \w{12} and finds \w{12}"):
        mlflow.pyfunc.load_model(str(model_folder), suppress_warnings=True)


def test_other_weights_of_the_same_shape_are_refused(model_folder: Path) -> None:
    weights = next((model_folder / "artifacts").rglob("model.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(RegistryError, match="was trained with encoder"):
        mlflow.pyfunc.load_model(str(model_folder), suppress_warnings=True)


def test_nothing_in_the_model_is_a_pickle(model_folder: Path) -> None:
    files = {path.name for path in model_folder.rglob("*") if path.is_file()}
    assert {"MLmodel", "spec.json", "config.json", "model.safetensors", "serving.py"} <= files
    assert files & {"head.safetensors", "head.skops"}
    suffixes = {Path(name).suffix for name in files}
    assert suffixes.isdisjoint({".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".pyc"})


def test_the_model_says_what_it_takes_and_needs(model_folder: Path) -> None:
    info = mlflow.models.get_model_info(str(model_folder))
    assert info.signature.inputs.input_names() == [
        "video", "video_base64", "start_s", "end_s",
    ]  # fmt: skip
    assert info.signature.outputs.input_names() == ["label", "score", "top5", "error"]
    example = json.loads((model_folder / "input_example.json").read_text())
    assert example["columns"] == ["video_base64"]
    assert len(example["data"][0][0]) < 8000
    needs = (model_folder / "requirements.txt").read_text().splitlines()
    assert all("==" in line and "+" not in line for line in needs)
    assert {line.split("==")[0] for line in needs} >= {"torch", "transformers", "av", "skops"}
    code = {path.name for path in (model_folder / "code" / "coinml").iterdir()}
    assert {"serving.py", "encoder", "media"} <= code
    assert code.isdisjoint({"miniature", "__pycache__"})


def test_a_loaded_model_leaves_the_path_as_it_was(trained: Trained) -> None:
    before = list(sys.path)
    predict_files(trained.store, "models:/kitchen-task@champion", [])
    assert sys.path == before


def test_predict_files_takes_the_champion_and_gives_plain_values(trained: Trained) -> None:
    video = trained.material.videos["Fry0_______"]
    rows = predict_files(
        trained.store, "models:/kitchen-task@champion", [str(video), "missing.mp4"]
    )
    assert json.loads(json.dumps(rows)) == rows
    assert [list(row) for row in rows] == [["video", "label", "score", "top5", "error"]] * 2
    assert rows[0]["video"] == str(video)
    assert rows[0]["label"] == "Fry"
    assert (rows[1]["label"], rows[1]["score"], rows[1]["top5"]) == (None, None, [])


def test_predict_files_names_the_model_that_is_not_there(trained: Trained) -> None:
    for uri in ("models:/coin-task@champion", "models:/kitchen-task/99", "nonsense"):
        with pytest.raises(RegistryError, match=uri):
            predict_files(trained.store, uri, ["a.mp4"])


def test_an_encoder_in_a_folder_cannot_be_referred_to(
    store: Store, material: Material, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match="only an encoder on the hub"):
        register(
            store, "m", "0" * 32,
            head_file=tmp_path / "head.skops", checkpoint=material.checkpoint,
            spec=material.spec, by_reference=True, tags={},
        )  # fmt: skip


def test_a_model_by_reference_carries_no_encoder(
    material: Material, tmp_path: Path, new_store: Callable[[Path], Store]
) -> None:
    from coinml.serving import staged_model

    (tmp_path / "head.skops").touch()
    with staged_model(
        tmp_path / "head.skops",
        material.checkpoint.files,
        spec=material.spec,
        encoder_ref="MCG-NJU/videomae-base",
        revision="abc123",
    ) as model:
        assert set(model["artifacts"]) == {"head", "spec"}
        described = json.loads(Path(model["artifacts"]["spec"]).read_text())
    assert (described["encoder_ref"], described["revision"]) == ("MCG-NJU/videomae-base", "abc123")


def test_a_playlist_in_base64_opens_no_other_file(
    trained: Trained, champion: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINML_SERVE_ROOT", str(tmp_path))
    outside = trained.material.videos["Cut0_______"]
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{outside}\n#EXT-X-ENDLIST\n"
    concat = f"ffconcat version 1.0\nfile '{outside}'\n"
    texts = [base64.b64encode(text.encode()).decode() for text in (hls, concat)]
    answers = champion.predict(pd.DataFrame({"video_base64": texts}))
    assert list(answers["label"]) == [None, None]
    assert answers["error"].notna().all()


def test_base64_has_a_limit(
    trained: Trained, champion: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = trained.material.videos["Cut0_______"].read_bytes()
    texts = [base64.b64encode(content * times).decode() for times in (1, 2)]
    monkeypatch.setenv("COINML_SERVE_MAX_MB", str(len(content) / 1e6))
    answers = champion.predict(pd.DataFrame({"video_base64": texts}))
    assert answers["label"][0] == "Cut"
    assert "at most" in answers["error"][1]
    assert "COINML_SERVE_MAX_MB" in answers["error"][1]


@pytest.fixture
def served(trained: Trained, tmp_path: Path) -> Iterator[tuple[httpx.Client, Path]]:
    """The champion behind `mlflow models serve`, and the only folder that it may read."""
    root = tmp_path / "videos"
    root.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    binaries = Path(sys.executable).parent
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "MLFLOW_TRACKING_URI": trained.store.uri,
        "COINML_SERVE_ROOT": str(root),
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
    }
    server = subprocess.Popen(
        [
            sys.executable, "-m", "mlflow", "models", "serve",
            "-m", "models:/kitchen-task@champion", "--env-manager", "local",
            "--host", "127.0.0.1", "--port", str(port),
        ],
        cwd=tmp_path, env=environment, start_new_session=True,
        stdout=(log := (tmp_path / "log").open("w")), stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            for _ in range(600):
                assert server.poll() is None, (tmp_path / "log").read_text()
                with contextlib.suppress(httpx.TransportError):
                    if client.get("/ping").status_code == 200:
                        break
                time.sleep(0.3)
            yield client, root
    finally:
        # Its workers with it.
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
        log.close()


def test_mlflow_serves_it_with_a_path_and_with_base64(
    trained: Trained, served: tuple[httpx.Client, Path], model_folder: Path
) -> None:
    client, root = served
    outside = trained.material.videos["Cut0_______"]
    shutil.copyfile(outside, root / "inside.mp4")
    (root / "link.mp4").symlink_to(outside)
    (root.parent / "beside.mp4").write_bytes(outside.read_bytes())
    text = base64.b64encode(trained.material.videos["Fry0_______"].read_bytes()).decode()

    def ask(**columns: list[str]) -> list[dict[str, Any]]:
        answer = client.post("/invocations", json={"inputs": columns})
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()["predictions"]
        return rows

    paths = [root / "inside.mp4", root / ".." / "beside.mp4", root / "link.mp4", outside]
    good, *refused = ask(video=[str(path) for path in paths])
    assert (good["label"], good["error"]) == ("Cut", None)
    assert len(refused) == 3
    assert all(row["label"] is None for row in refused)
    assert all("is not below COINML_SERVE_ROOT" in row["error"] for row in refused)
    (encoded,) = ask(video_base64=[text])
    assert (encoded["label"], encoded["error"]) == ("Fry", None)
    # What MLflow shows on the model's page to copy and try.
    example = (model_folder / "serving_input_example.json").read_text()
    answer = client.post(
        "/invocations", content=example, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 200, answer.text
    (row,) = answer.json()["predictions"]
    assert row["error"] is None
    assert row["label"] in {"Boil", "Cut", "Fry"}


@pytest.mark.parametrize(
    "asked",
    ["{video}", "/etc/passwd", "http://127.0.0.1:9/a.mp4", "file://{video}", "s3://bucket/a.mp4"],
)
def test_a_server_that_nobody_gave_a_folder_reads_no_file(
    trained: Trained, champion: Any, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastapi.testclient import TestClient
    from mlflow.pyfunc.scoring_server import init

    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "false")
    video = trained.material.videos["Cut0_______"]
    answer = TestClient(init(champion)).post(
        "/invocations", json={"inputs": {"video": [asked.format(video=video)]}}
    )
    assert answer.status_code == 200, answer.text
    (row,) = answer.json()["predictions"]
    assert row["label"] is None
    assert "reads no files" in row["error"]


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/a.mp4", "file://{video}", "concat:{video}"]
)
def test_an_address_is_no_file(trained: Trained, champion: Any, address: str) -> None:
    video = trained.material.videos["Cut0_______"]
    row = champion.predict(pd.DataFrame({"video": [address.format(video=video)]})).iloc[0]
    assert row["label"] is None
    assert "no such file" in row["error"]


def test_a_model_that_is_a_pickle_is_not_loaded(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    class Evil(mlflow.pyfunc.PythonModel):
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "run",))

        def predict(self, context: Any, model_input: list[str]) -> list[str]:
            return model_input

    trained.store.client()
    mlflow.pyfunc.save_model(tmp_path / "evil", python_model=Evil())
    assert any(path.suffix == ".pkl" for path in (tmp_path / "evil").rglob("*"))
    (tmp_path / "run").unlink(missing_ok=True)
    with pytest.raises(RegistryError, match="pickle"):
        predict_files(trained.store, str(tmp_path / "evil"), ["a.mp4"])
    assert not (tmp_path / "run").exists()


def test_behind_mlflows_own_server_the_answers_are_json(
    trained: Trained, champion: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastapi.testclient import TestClient
    from mlflow.pyfunc.scoring_server import init

    video = trained.material.videos["Cut0_______"]
    rows = [[str(video)], ["/nowhere.mp4"]]
    # Set first, so that it is put back: `init` leaves it behind.
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "false")
    monkeypatch.setenv("COINML_SERVE_ROOT", "/")
    answer = TestClient(init(champion)).post(
        "/invocations", json={"dataframe_split": {"columns": ["video"], "data": rows}}
    )
    assert answer.status_code == 200, answer.text
    good, missing = answer.json()["predictions"]
    assert (good["label"], good["error"]) == ("Cut", None)
    assert good["top5"][0] == {"label": "Cut", "score": good["score"]}
    assert missing == {
        "label": None,
        "score": None,
        "top5": [],
        "error": "/nowhere.mp4: no such file",
    }
