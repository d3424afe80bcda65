"""No part of a model is unpickled, since a pickle can run any code."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import torch

from coinml.encoder.clip_encoder import load_encoder
from coinml.encoder.sampling import Sampling
from coinml.errors import CoinmlError
from coinml.heads.kinds import load_head
from coinml.registry.export import export_model
from tests.helpers.kitchen_dataset import Trained


class Evil:
    """Unpickled, it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that is there if a pickle was read."""
    return tmp_path / "it was run"


def as_pickle(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps(Evil(mark)))


def as_torch_file(path: Path, mark: Path) -> None:
    torch.save({"weights": Evil(mark)}, path)


WRITERS = (as_pickle, as_torch_file)


def test_unpickling_would_run_the_code_of_these_files(tmp_path: Path, mark: Path) -> None:
    as_pickle(tmp_path / "a", mark)
    pickle.loads((tmp_path / "a").read_bytes())
    assert mark.is_file()


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", ["head.safetensors", "head.skops", "head.pkl", "head.pt"])
def test_a_head_is_never_unpickled(
    write: Callable[[Path, Path], None], name: str, tmp_path: Path, mark: Path
) -> None:
    write(tmp_path / name, mark)
    with pytest.raises(CoinmlError, match=name):
        load_head(tmp_path / name)
    assert not mark.exists()


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_an_encoder_is_never_unpickled(
    write: Callable[[Path, Path], None],
    name: str,
    tiny_encoder_dir: Path,
    tmp_path: Path,
    mark: Path,
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder_dir, folder)
    (folder / "model.safetensors").unlink()
    write(folder / name, mark)
    with pytest.raises(CoinmlError, match=name):
        load_encoder(folder, device="cpu", sampling=Sampling(clips=2))
    assert not mark.exists()


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("wanted", ["head.safetensors", "model.safetensors"])
def test_no_part_of_a_registered_model_is_unpickled(
    trained: Trained,
    write: Callable[[Path, Path], None],
    wanted: str,
    tmp_path: Path,
    mark: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    folder = tmp_path / "exported"
    export_model(trained.store, "models:/kitchen-task@champion", folder)
    (place,) = folder.rglob(wanted)
    write(place, mark)
    with pytest.raises(CoinmlError, match=wanted):
        mlflow.pyfunc.load_model(str(folder), suppress_warnings=True).predict(
            pd.DataFrame({"video": ["a.mp4"]})
        )
    assert not mark.exists()
