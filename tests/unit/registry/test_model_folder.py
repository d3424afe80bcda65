"""What a registered model's folder has, and which folders are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

from coinml.errors import InvalidInputError, RegistryError
from coinml.registry.predict import predict_files
from coinml.registry.register import register
from coinml.tracking.mlflow_store import MlflowStore
from tests.helpers.kitchen_dataset import EmbeddedDataset, Trained


def test_other_preprocessing_than_in_training_is_refused(model_folder: Path) -> None:
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


def test_the_model_has_a_signature_and_pinned_requirements(model_folder: Path) -> None:
    info = mlflow.models.get_model_info(str(model_folder))
    assert info.signature.inputs.input_names() == [
        "video",
        "video_base64",
        "start_s",
        "end_s",
    ]
    assert info.signature.outputs.input_names() == ["label", "score", "top5", "error"]
    assert [one.name for one in info.signature.params] == ["precision"]
    example = json.loads((model_folder / "input_example.json").read_text())
    assert example["columns"] == ["video_base64"]
    assert len(example["data"][0][0]) < 8000
    needs = (model_folder / "requirements.txt").read_text().splitlines()
    assert all("==" in line and "+" not in line for line in needs)
    assert {line.split("==")[0] for line in needs} >= {"torch", "transformers", "av", "skops"}
    code = {path.name for path in (model_folder / "code" / "coinml").iterdir()}
    assert {"registry", "encoder", "media"} <= code
    assert code.isdisjoint({"miniature", "__pycache__"})


def test_a_local_encoder_cannot_be_referenced_by_hub_id(
    store: MlflowStore, material: EmbeddedDataset, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match="only an encoder on the hub"):
        register(
            store,
            "m",
            "0" * 32,
            head_file=tmp_path / "head.skops",
            checkpoint=material.checkpoint,
            spec=material.spec,
            by_reference=True,
            tags={},
        )


def test_a_model_by_reference_contains_no_encoder(
    material: EmbeddedDataset, tmp_path: Path, new_store: Callable[[Path], MlflowStore]
) -> None:
    from coinml.registry.model_files import staged_model

    (tmp_path / "head.skops").touch()
    with staged_model(
        tmp_path / "head.skops",
        spec=material.spec,
        encoder_ref="MCG-NJU/videomae-base",
        revision="abc123",
    ) as model:
        assert set(model["artifacts"]) == {"head", "spec"}
        described = json.loads(Path(model["artifacts"]["spec"]).read_text())
    assert (described["encoder_ref"], described["revision"]) == ("MCG-NJU/videomae-base", "abc123")


def test_a_pickled_model_is_not_loaded(
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
