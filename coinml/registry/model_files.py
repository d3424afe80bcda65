"""The files of a registered model: head, a copy of coinml, and what serving needs."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, Object, Property

from coinml.embedding_sets.spec import SetSpec
from coinml.encoder.sampling import INT8
from coinml.encoder.spec import EncoderSpec
from coinml.evaluation.abstention import ValAnswers
from coinml.media import write_video

_SPEC, _VAL_ANSWERS = "spec.json", "val_answers.json"

SIGNATURE = ModelSignature(
    inputs=Schema(
        [
            # MLflow lets columns of objects pass, so pathlib.Path works too. Of the type "any",
            # its scoring server would take a column for one value.
            ColSpec("string", "video", required=False),
            ColSpec("string", "video_base64", required=False),
            ColSpec("double", "start_s", required=False),
            ColSpec("double", "end_s", required=False),
        ]
    ),
    outputs=Schema(
        [
            ColSpec("string", "label", required=False),
            ColSpec("double", "score", required=False),
            ColSpec(
                Array(Object([Property("label", "string"), Property("score", "double")])), "top5"
            ),
            ColSpec("string", "error", required=False),
        ]
    ),
    # With a precision the answer has a column `accepted` as well.
    params=ParamSchema([ParamSpec("precision", "double", None)]),
)

REQUIREMENTS = (
    "av",
    "mlflow",
    "numpy",
    "pandas",
    "pydantic-settings",
    "safetensors",
    "scikit-learn",
    "scipy",
    "skops",
    "torch",
    "transformers",
)
"""Packages that serving needs, pinned to the versions installed at registration."""


@contextmanager
def staged_model(
    head: Path,
    *,
    spec: SetSpec,
    val_answers: ValAnswers | None = None,
    encoder_digest: str | None = None,
    encoder_ref: str | None = None,
    revision: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Collect a model's files; yields keyword arguments for `mlflow.pyfunc.save_model`.

    Args:
        head: The head's file.
        spec: The embedding set that the head was trained on.
        val_answers: The head's answers on val, by which the model abstains.
        encoder_digest: Digest of the stored encoder.
        encoder_ref: Hub id of the encoder, where it is not stored.
        revision: Commit of the hub id.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        described = {
            "encoder": spec.encoder.as_dict(),
            "snap": spec.snap,
            "encoder_digest": encoder_digest,
            "encoder_ref": encoder_ref,
            "revision": revision,
        }
        (folder / _SPEC).write_text(json.dumps(described, indent=2))
        artifacts = {"head": str(head), "spec": str(folder / _SPEC)}
        if val_answers is not None:
            file = folder / _VAL_ANSWERS
            file.write_text(json.dumps(val_answers.as_dict()))
            artifacts["val_answers"] = str(file)
        package = Path(__file__).parents[1]
        shutil.copytree(
            package,
            folder / "code" / "coinml",
            ignore=shutil.ignore_patterns("__pycache__", "miniature", "migrations"),
        )
        yield {
            "python_model": str(package / "registry" / "model_entry.py"),
            "artifacts": artifacts,
            "code_paths": [str(folder / "code" / "coinml")],
            "signature": SIGNATURE,
            "input_example": pd.DataFrame({"video_base64": [_example(folder)]}),
            "pip_requirements": _requirements(spec.encoder),
        }


def _example(folder: Path) -> str:
    """A small video as base64: the model's input example."""
    rows, columns = np.mgrid[0:48, 0:64]
    frames = (
        np.stack([rows * 4, columns * 3, (rows + columns + 8 * t) % 128], axis=-1).astype(np.uint8)
        for t in range(16)
    )
    file = write_video(folder / "example.mp4", frames, fps=8, crf=35)
    return base64.b64encode(file.read_bytes()).decode()


def _requirements(encoder: EncoderSpec) -> list[str]:
    from importlib.metadata import version

    quantized = ("openvino",) if encoder.precision == INT8 else ()
    # Package indexes have no releases with a local version suffix such as "+cpu".
    return [f"{name}=={version(name).split('+')[0]}" for name in (*REQUIREMENTS, *quantized)]
