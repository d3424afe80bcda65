"""Fixtures for all tests: a clean environment, synthetic videos, a tiny VideoMAE, shared data."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.helpers.postgres import PostgresServer
from tests.helpers.small_models import PROCESSOR, SMALL_DECODER, VIDEOMAE

SHARED_DATA = Path(
    os.environ.get("COINML_SHARED_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
)
FORBID_SKIPS = os.environ.get("COINML_FORBID_SKIPS") == "1"


def absent(what: str) -> NoReturn:
    """Skip since something is missing; fail instead if COINML_FORBID_SKIPS is 1."""
    if FORBID_SKIPS:
        pytest.fail(f"{what}, and COINML_FORBID_SKIPS is 1")
    pytest.skip(f"{what}; COINML_FORBID_SKIPS=1 makes this a failure")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape lone surrogates in what a test logs, which no process can send to another."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture(scope="session")
def find_program() -> Callable[..., str]:
    """A function that returns the first installed one of some programs, or skips the test."""

    def find(*names: str, package: str) -> str:
        # Debian keeps PostgreSQL's server programs off the PATH.
        folders = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
        path = os.pathsep.join([os.environ.get("PATH", ""), *folders])
        found = [program for name in names if (program := shutil.which(name, path=path))]
        return found[0] if found else absent(f"no {' or '.join(names)} (Debian: {package})")

    return find


@pytest.fixture(scope="session")
def chromium(find_program: Callable[..., str]) -> str:
    """The path of a Chromium."""
    return find_program("chromium", "chromium-browser", "google-chrome", package="chromium")


@pytest.fixture(scope="session")
def new_postgres(find_program: Callable[..., str]) -> Iterator[Callable[..., PostgresServer]]:
    """A function that starts a PostgreSQL server, with a password if given."""
    programs = Path(find_program("initdb", package="postgresql")).parent
    find_program("pg_ctl", package="postgresql")
    if importlib.util.find_spec("psycopg") is None:
        absent("no psycopg (pip install 'coinml[postgres]')")
    if os.geteuid() == 0:
        # PostgreSQL does not run as root.
        find_program("setpriv", package="util-linux")
    servers = []

    def start(password: str | None = None) -> PostgresServer:
        # Not in pytest's folder, which the user postgres may not enter.
        folder = Path(tempfile.mkdtemp(prefix="coinml-pg-"))
        servers.append(PostgresServer(folder, programs=programs, password=password))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(new_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    """A PostgreSQL server without a password."""
    return new_postgres()


@pytest.fixture
def shared_data() -> Path:
    """The folder of real annotations, clips and unusual media files."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no shared data at {SHARED_DATA} (set COINML_SHARED_DATA)")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings of the shell that tests run in."""
    for name in list(os.environ):
        if name.startswith("COINML_"):
            monkeypatch.delenv(name)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        # MLflow sets them during a test; setting them first makes monkeypatch restore them.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("DO_NOT_TRACK", "true")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def _logs_are_captured() -> None:
    """Undo what Prefect and MLflow, started by an earlier test, set for coinml's loggers."""
    logging.disable(logging.NOTSET)
    for name in ("coinml", *(one for one in logging.root.manager.loggerDict if "coinml." in one)):
        logger = logging.getLogger(name)
        logger.disabled, logger.propagate = False, True
        logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="module", autouse=True)
def _path_as_it_was() -> Iterator[None]:
    """Restore sys.path, to which MLflow prepends the code of a loaded model.

    Processes of later tests would import that code.
    """
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    """A function that writes a small H.264 file with moving content."""
    import numpy as np

    from coinml.media import write_video

    def make(
        path: Path,
        *,
        seconds: float = 2.0,
        fps: int = 25,
        size: tuple[int, int] = (64, 48),
        seed: int = 0,
    ) -> Path:
        rng = np.random.default_rng(seed)
        width, height = size
        base = rng.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
        still = base.repeat(8, axis=0).repeat(8, axis=1)
        frames = (np.roll(still, 2 * t, axis=1) for t in range(round(seconds * fps)))
        write_video(path, frames, fps=fps)
        return path

    return make


@pytest.fixture(scope="session")
def tiny_encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint folder of a VideoMAE with random weights and hidden size 32."""
    import json

    import torch
    from transformers import VideoMAEConfig, VideoMAEModel

    folder = tmp_path_factory.mktemp("tiny-videomae")
    torch.manual_seed(0)
    config = VideoMAEConfig(patch_size=16, tubelet_size=2, **VIDEOMAE)
    VideoMAEModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


@pytest.fixture(scope="session")
def small_encoder(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_dir: Path) -> Path:
    """The tiny encoder, whose configuration asks for a small decoder."""
    import json

    folder = tmp_path_factory.mktemp("small") / "small"
    shutil.copytree(tiny_encoder_dir, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **SMALL_DECODER}))
    return folder
