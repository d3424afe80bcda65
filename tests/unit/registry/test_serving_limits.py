"""What a client of a served model may ask for, under any server."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from mlflow.pyfunc.scoring_server import init

from coinml import media
from coinml.errors import InvalidInputError, LocalError
from coinml.registry.predict import predict_files
from coinml.registry.serving_limits import RefusedRequestError, ServingLimits, serving_limits
from coinml.registry.video_classifier import VideoClassifier
from tests.helpers.kitchen_dataset import Trained

VARIABLES = ["MAX_MB", "MAX_TOTAL_MB", "MAX_ROWS", "MAX_S", "PARALLEL"]


@pytest.fixture
def video(trained: Trained) -> Path:
    return trained.material.videos["Cut0_______"]


@pytest.fixture
def text(video: Path) -> str:
    return base64.b64encode(video.read_bytes()).decode()


def errors_of(model: Any, **columns: list[Any]) -> list[str | None]:
    answers = model.predict(pd.DataFrame(columns))
    assert len(answers) == len(next(iter(columns.values())))
    return [None if pd.isna(error) else error for error in answers["error"]]


def in_thread(work: Callable[[], Any]) -> Any:
    """Work in another thread, as a server does."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work).result()


@pytest.mark.parametrize("root", [None, "", "  "])
def test_no_host_reads_files_unless_a_folder_is_named(
    root: str | None,
    trained: Trained,
    champion: Any,
    video: Path,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(video.parent)
    if root is None:
        monkeypatch.delenv("COINML_SERVE_ROOT")
    else:
        monkeypatch.setenv("COINML_SERVE_ROOT", root)
    app = FastAPI()

    @app.post("/classify")
    def classify(row: dict[str, str]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = champion.predict(pd.DataFrame([row])).to_dict("records")
        return found

    client = TestClient(app)
    for named in (str(video), video.name):
        (row,) = client.post("/classify", json={"video": named}).json()
        assert row["label"] is None
        assert "COINML_SERVE_ROOT is not set" in row["error"]
        answer = in_thread(lambda named=named: errors_of(champion, video=[named])[0])
        assert "COINML_SERVE_ROOT is not set" in str(answer)
    (row,) = client.post("/classify", json={"video_base64": text}).json()
    assert (row["label"], row["error"]) == ("Cut", None)
    # coinml's own commands read the files that their user names.
    (row,) = predict_files(trained.store, "models:/kitchen-task@champion", [str(video)])
    assert (row["label"], row["error"]) == ("Cut", None)
    answer = in_thread(lambda: errors_of(champion, video=[str(video)])[0])
    assert "COINML_SERVE_ROOT is not set" in str(answer)


PROGRAM = """
import asyncio, json, os, socket, sys, tempfile, threading, types
from contextlib import contextmanager
from unittest import mock

import mlflow
import pandas as pd

store, video = sys.argv[1:]
mlflow.set_tracking_uri(f"sqlite:///{store}/mlflow.db")
model = mlflow.pyfunc.load_model("models:/kitchen-task@champion", suppress_warnings=True)

def error(rows=1):
    answers = model.predict(pd.DataFrame({"video": [video] * rows}))
    return (list(answers["error"].dropna()) or [None])[0]

def in_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(error()))
    thread.start()
    thread.join()
    return found[0]

async def in_loop():
    return error()

def listening(family, address):
    with socket.socket(family) as one:
        one.bind(address)
        one.listen()
        return error()

def with_root(root):
    with mock.patch.dict(os.environ, COINML_SERVE_ROOT=root):
        return error()

found = {"program": error(rows=65)}
found["thread"] = in_thread()
found["event loop"] = asyncio.run(in_loop())
found["socket"] = listening(socket.AF_INET, ("127.0.0.1", 0))
with tempfile.TemporaryDirectory() as folder:
    found["unix socket"] = listening(socket.AF_UNIX, f"{folder}/socket")
with mock.patch.dict(sys.modules, celery=types.ModuleType("celery")):
    found["worker"] = error()
found["empty root"] = with_root("")
found["other root"] = with_root(store)
found["program again"] = error()
print(json.dumps(found))
"""


def test_a_program_reads_the_files_of_its_user_and_no_server_does(
    trained: Trained, champion: Any, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COINML_SERVE_ROOT")
    copy = tmp_path / "video.mp4"
    copy.write_bytes(video.read_bytes())
    store = str(trained.store.uri).removeprefix("sqlite:///").removesuffix("/mlflow.db")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, store, copy], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found.pop("program"), found.pop("program again")) == (None, None)
    assert "is not below COINML_SERVE_ROOT" in found.pop("other root")
    assert len(found) == 6
    for how, error in found.items():
        assert "COINML_SERVE_ROOT is not set" in str(error), how


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "0", "-1", "much"])
def test_a_limit_is_finite_and_positive(
    name: str, value: str, champion: Any, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"COINML_SERVE_{name}", value)
    with pytest.raises(LocalError, match=f"COINML_SERVE_{name} '{value}'"):
        serving_limits()
    with pytest.raises(RefusedRequestError, match=f"COINML_SERVE_{name}"):
        champion.predict(pd.DataFrame({"video_base64": [text]}))


@pytest.mark.parametrize("name", VARIABLES)
def test_an_empty_limit_is_the_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    default = serving_limits()
    monkeypatch.setenv(f"COINML_SERVE_{name}", "")
    assert serving_limits() == default


def test_a_model_does_not_load_with_a_wrong_limit(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINML_SERVE_MAX_MB", "nan")
    with pytest.raises(LocalError, match="COINML_SERVE_MAX_MB 'nan'"):
        mlflow.pyfunc.load_model(str(model_folder), suppress_warnings=True)


def test_a_request_has_a_largest_number_of_rows(
    trained: Trained, champion: Any, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINML_SERVE_MAX_ROWS", "2")
    assert errors_of(champion, video=[str(video)] * 2) == [None, None]
    with pytest.raises(InvalidInputError, match=r"at most 2 rows \(COINML_SERVE_MAX_ROWS\)"):
        champion.predict(pd.DataFrame({"video": [str(video)] * 3}))
    rows = predict_files(trained.store, "models:/kitchen-task@champion", [str(video)] * 3)
    assert [row["label"] for row in rows] == ["Cut"] * 3


def test_the_base64_videos_of_a_request_have_a_limit_together(
    champion: Any, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size_mb = len(text) * 3 / 4e6
    monkeypatch.setenv("COINML_SERVE_MAX_TOTAL_MB", str(2.5 * size_mb))
    first, second, third, small = errors_of(champion, video_base64=[text] * 3 + ["AAAA"])
    assert (first, second) == (None, None)
    assert "COINML_SERVE_MAX_TOTAL_MB" in str(third)
    assert "COINML_SERVE_MAX_TOTAL_MB" not in str(small)


def test_a_request_ends_in_time(
    champion: Any, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINML_SERVE_MAX_S", "0.001")
    found = errors_of(champion, video=[str(video)] * 5)
    assert set(found) == {"not answered within 0.001 s (COINML_SERVE_MAX_S)"}
    monkeypatch.delenv("COINML_SERVE_MAX_S")
    assert errors_of(champion, video=[str(video)]) == [None]


def test_no_row_is_classified_after_the_end_of_a_request(champion: Any, video: Path) -> None:
    model: VideoClassifier = champion.unwrap_python_model()
    rows = [{"video": str(video)}, {"video": "/nowhere.mp4"}]
    answers = model._answers(rows, ServingLimits(max_s=0.5, root=Path("/")), time.monotonic() - 1)
    assert [one.error for one in answers] == ["not answered within 0.5 s (COINML_SERVE_MAX_S)"] * 2


def test_requests_share_their_processes_and_wait_for_their_turn(
    champion: Any, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: VideoClassifier = champion.unwrap_python_model()
    found: list[list[str | None]] = []
    threads = [
        threading.Thread(target=lambda: found.append(errors_of(champion, video=[str(video)] * 2)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    most = 0
    while any(thread.is_alive() for thread in threads):
        most = max(most, len(model._pool.pids))
        threading.Event().wait(0.05)
    assert found == [[None, None]] * 8
    assert 0 < most <= model._pool.workers
    turns = [model._turns.acquire(blocking=False) for _ in range(4)]
    try:
        assert turns == [True] * 4
        monkeypatch.setenv("COINML_SERVE_MAX_S", "0.1")
        with pytest.raises(RefusedRequestError, match="4 requests are running") as refusal:
            champion.predict(pd.DataFrame({"video": [str(video)]}))
        assert refusal.value.get_http_status_code() == 429
    finally:
        for _ in turns:
            model._turns.release()


def test_processes_end_when_there_is_no_request(
    make_video: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_video(tmp_path / "a.mp4")
    with media.DecodePool(idle_s=0.2) as pool:
        assert pool.check(path).verdict == "ok"
        while pool.pids:
            threading.Event().wait(0.05)
        assert pool.check(path).verdict == "ok"


def test_a_temporary_file_goes_once_it_is_sampled(
    champion: Any, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left: list[int] = []
    classify = VideoClassifier._classify

    def watched(self: VideoClassifier, vectors: np.ndarray) -> dict[str, Any]:
        left.append(len(list(tmp_path.rglob("*.video"))))
        return classify(self, vectors)

    monkeypatch.setattr(VideoClassifier, "_classify", watched)
    workers = champion.unwrap_python_model()._pool.workers
    rows = 3 * workers + 3
    assert errors_of(champion, video_base64=[text] * rows) == [None] * rows
    assert len(left) == rows
    # The video that is classified has none, and those that are decoded ahead have one each.
    assert max(left) <= workers + max(1, workers // 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, KeyError, PermissionError])
def test_an_exception_of_one_row_is_that_rows_error(
    error: type[Exception], champion: Any, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classify = VideoClassifier._classify
    calls: list[int] = []

    def fails_once(self: VideoClassifier, vectors: np.ndarray) -> dict[str, Any]:
        calls.append(1)
        if len(calls) == 2:
            raise error("/srv/secret/folder")
        return classify(self, vectors)

    monkeypatch.setattr(VideoClassifier, "_classify", fails_once)
    found = errors_of(champion, video=[str(video)] * 3)
    # Rows are classified in the order in which their videos are encoded.
    assert found.count(None) == 2
    (failed,) = (text for text in found if text is not None)
    assert error.__name__ in failed
    assert "secret" not in failed


def test_huge_pictures_are_that_rows_error(champion: Any, text: str, tmp_path: Path) -> None:
    rows = (np.full((16, 8192, 3), 9 * number, dtype=np.uint8) for number in range(16))
    bomb = media.write_video(tmp_path / "bomb.mp4", rows)
    assert bomb.stat().st_size < 10_000
    encoded = base64.b64encode(bomb.read_bytes()).decode()
    first, second, third = errors_of(champion, video_base64=[text, encoded, text])
    assert (first, third) == (None, None)
    assert second == "video_base64: pictures of 8192x16; sides of at most 20:1 are decoded"


def test_errors_name_no_folder_of_the_server(
    champion: Any, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "secret-place"
    real.mkdir()
    root = tmp_path / "videos"
    root.symlink_to(real)
    monkeypatch.setenv("COINML_SERVE_ROOT", str(root))
    (real / "good.mp4").write_bytes(video.read_bytes())
    (real / "loop.mp4").symlink_to(real / "loop2.mp4")
    (real / "loop2.mp4").symlink_to(real / "loop.mp4")
    (real / "out.mp4").symlink_to(video)
    (real / "junk.mp4").write_bytes(b"junk" * 999)
    (real / "empty.mp4").touch()
    (real / "folder.mp4").mkdir()
    os.mkfifo(real / "pipe.mp4")
    names = ["good", "loop", "out", "junk", "empty", "folder", "pipe", "none", "n" * 300, "\0"]
    asked = [str(root / f"{name}.mp4") for name in names]
    asked += [str(root / ".." / "none.mp4"), str(root / "good.mp4" / "x"), "~/a.mp4", "loop.mp4"]
    good, *refused = errors_of(champion, video=asked)
    assert good is None
    assert len(refused) == len(asked) - 1
    assert all(refused)
    for text in refused:
        assert "secret-place" not in str(text)
        assert str(video.parent) not in str(text)
    assert "is no path to a file" in str(refused[0])
    assert "not below COINML_SERVE_ROOT" in str(refused[1])


@pytest.mark.parametrize("request_", [{"film": ["a"]}, {"video": ["a.mp4"] * 3}])
def test_a_refused_request_answers_without_a_stack_trace(
    request_: dict[str, list[str]], champion: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Set here so that monkeypatch restores it: `init` sets it for good.
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "false")
    monkeypatch.setenv("COINML_SERVE_MAX_ROWS", "2")
    answer = TestClient(init(champion)).post("/invocations", json={"inputs": request_})
    assert answer.status_code == 400
    assert "Traceback" not in answer.text
    assert "site-packages" not in answer.text
    assert str(Path(media.__file__).parents[1]) not in answer.text
    assert "is needed" in answer.text or "at most 2 rows" in answer.text


def test_a_served_model_decodes_with_pyav_alone(
    champion: Any, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for a good nor for a broken file, nor for one that names a file elsewhere."""
    for decoder in ("decord", "torchcodec"):
        mark = f"from pathlib import Path\nPath({str(tmp_path / decoder)!r}).touch()\n"
        (tmp_path / f"{decoder}.py").write_text(mark)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setenv("COINML_SERVE_ROOT", str(root))
    (root / "good.mp4").write_bytes(video.read_bytes())
    (root / "cut.mp4").write_bytes(video.read_bytes()[:2000])
    (root / "list.mp4").write_text(f"ffconcat version 1.0\nfile '{video}'\n")
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{video}\n#EXT-X-ENDLIST\n"
    (root / "list.m3u8").write_text(playlist)
    model: VideoClassifier = champion.unwrap_python_model()
    model._pool.close()
    monkeypatch.setattr(model, "_pool", media.DecodePool())
    files = [str(root / name) for name in ("good.mp4", "cut.mp4", "list.mp4", "list.m3u8")]
    good, *refused = errors_of(champion, video=files)
    model._pool.close()
    assert good is None
    assert len([text for text in refused if text]) == 3
    assert not (tmp_path / "decord").exists()
    assert not (tmp_path / "torchcodec").exists()
