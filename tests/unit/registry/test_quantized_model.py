"""A registered model of a quantized set contains the quantized model and answers with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from coinml import media
from coinml.embedding.engine import embed
from coinml.embedding.quantization import load_set_encoder, open_set
from coinml.embedding_sets.options import SetOptions
from coinml.embedding_sets.quantized_file import quantized_file
from coinml.embedding_sets.table import build_table
from coinml.errors import InvalidInputError
from coinml.registry.export import export_model
from coinml.registry.register import register
from coinml.registry.versions import version_at
from coinml.tracking.mlflow_store import MlflowStore
from tests.helpers.kitchen_dataset import MODEL, EmbeddedDataset, train
from tests.unit.embedding.test_engine import job_of


def test_it_predicts_with_the_vectors_of_the_set(
    material: EmbeddedDataset, store: MlflowStore, tmp_path: Path
) -> None:
    options = SetOptions(
        encoder=str(material.checkpoint.folder), clips=2, stride=1, precision="int8"
    )
    root, name = str(tmp_path / "sets"), material.dataset.name
    jobs = [replace(job_of(path), video_id=video_id) for video_id, path in material.videos.items()]
    training = {video.video_id for video in material.dataset.videos if video.split == "train"}
    embeddings = open_set(root, name, options, jobs, training=training)
    assert embeddings.spec.encoder.calibration_sha256 is not None
    encoder = load_set_encoder(root, name, options, "cpu")
    embed(jobs, encoder, embeddings)
    quantized = replace(
        material,
        spec=embeddings.spec,
        table=build_table(material.dataset.videos, embeddings.videos()),
        checkpoint=replace(material.checkpoint, quantized=quantized_file(embeddings)),
    )
    train("mlp", store, quantized)
    version = version_at(store, MODEL, "challenger")
    assert version is not None
    folder = tmp_path / "model"
    export_model(store, f"models:/{MODEL}@challenger", folder)
    (carried,) = folder.rglob("int8.zip")
    assert carried.read_bytes() == quantized_file(embeddings).read_bytes()
    assert "openvino==" in (folder / "requirements.txt").read_text()
    model: Any = mlflow.pyfunc.load_model(str(folder), suppress_warnings=True)
    served = model.unwrap_python_model()
    assert served._encoder.spec == embeddings.spec.encoder
    path = str(material.videos["Boil0______"])
    clips = media.sample(path, encoder.clip_spec()).frames
    assert np.array_equal(served._encoder.encode(clips), encoder.encode(clips))
    answer = model.predict([{"video": path}])
    assert answer["error"].isna().all()
    assert answer["label"].tolist() == ["Boil"]


@pytest.mark.parametrize(
    ("by_reference", "says"), [(True, "by reference"), (False, "has lost its own")]
)
def test_without_its_quantized_model_it_is_not_registered(
    by_reference: bool,
    says: str,
    material: EmbeddedDataset,
    store: MlflowStore,
    tmp_path: Path,
) -> None:
    spec = replace(material.spec, encoder=replace(material.spec.encoder, precision="int8"))
    # As from the hub.
    checkpoint = replace(material.checkpoint, commit="0" * 40)
    with pytest.raises(InvalidInputError, match=says):
        register(
            store,
            MODEL,
            "no run",
            head_file=tmp_path / "head",
            checkpoint=checkpoint,
            spec=spec,
            by_reference=by_reference,
            tags={},
        )
