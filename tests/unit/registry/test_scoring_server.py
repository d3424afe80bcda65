"""The registered model behind a scoring server: the files it reads and the answers it gives."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from tests.helpers.kitchen_dataset import Trained


def test_a_server_reads_only_files_below_the_serve_root(
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


def test_a_playlist_sent_as_base64_opens_no_other_file(
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


def test_base64_videos_have_a_size_limit(
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
    """The URL of the champion under `mlflow models serve`, and its serve root."""
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
            sys.executable,
            "-m",
            "mlflow",
            "models",
            "serve",
            "-m",
            "models:/kitchen-task@champion",
            "--env-manager",
            "local",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ],
        cwd=tmp_path,
        env=environment,
        start_new_session=True,
        stdout=(log := (tmp_path / "log").open("w")),
        stderr=subprocess.STDOUT,
    )
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
        # The whole process group, workers included.
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
        log.close()


def test_mlflow_models_serve_answers_paths_and_base64(
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
    # The example request that MLflow shows on the model's page.
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
def test_a_server_without_a_serve_root_reads_no_file(
    trained: Trained, champion: Any, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastapi.testclient import TestClient
    from mlflow.pyfunc.scoring_server import init

    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "false")
    monkeypatch.delenv("COINML_SERVE_ROOT")
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
def test_a_url_is_not_a_file(trained: Trained, champion: Any, address: str) -> None:
    video = trained.material.videos["Cut0_______"]
    row = champion.predict(pd.DataFrame({"video": [address.format(video=video)]})).iloc[0]
    assert row["label"] is None
    assert "no such file" in row["error"]


def test_the_scoring_server_answers_with_valid_json(
    trained: Trained, champion: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastapi.testclient import TestClient
    from mlflow.pyfunc.scoring_server import init

    video = trained.material.videos["Cut0_______"]
    rows = [[str(video)], ["/nowhere.mp4"]]
    # Set here so that monkeypatch restores it: `init` sets it for good.
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "false")
    monkeypatch.setenv("COINML_SERVE_ROOT", "/")
    client, asked = TestClient(init(champion)), {"columns": ["video"], "data": rows}
    answer = client.post("/invocations", json={"dataframe_split": asked})
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
    abstaining = {"dataframe_split": asked, "params": {"precision": 0.5}}
    answer = client.post("/invocations", json=abstaining)
    assert answer.json()["predictions"] == [
        good | {"accepted": True},
        missing | {"accepted": False},
    ]
    answer = client.post("/invocations", json=abstaining | {"params": {"precision": 0.99}})
    assert answer.status_code == 400
    assert "the 6 val videos of this model" in answer.text
