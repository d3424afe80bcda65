"""The recipe of a training as a digest: with an equal one, no second training is needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.embedding_sets.table import sample_ids, table_digest
from coinml.heads.kinds import head_kind
from coinml.tracking.run_origin import code_version
from coinml.training.training_data import TrainingData

_PACKAGE = Path(__file__).parents[1]
_DECISIVE = (
    "data/targets.py",
    "embedding_sets/table.py",
    "evaluation",
    "heads",
    "training/cross_validation.py",
    "training/fingerprint.py",
    "training/train_head.py",
    "training/training_data.py",
)
"""Files and folders of the code that decides what a head learns and how it is measured."""


@cache
def code_digest() -> str:
    """12 hex digits of the code that decides what a head learns and how it is measured."""
    digest = hashlib.sha256()
    for place in _DECISIVE:
        path = _PACKAGE / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(_PACKAGE).as_posix()}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def training_ingredients(
    head: str,
    data: TrainingData,
    *,
    code: str,
    options: Mapping[str, Any],
    seed: int,
    drop_leaks: bool,
    by_reference: bool,
) -> dict[str, Any]:
    """Everything that a training's outcome depends on, as plain values.

    Args:
        head: Which head.
        data: What it is trained on.
        code: `code_digest()`.
        options: Of its trainer.
        seed: Of all random numbers.
        drop_leaks: Whether it is trained without leaks.
        by_reference: Whether the model names its encoder on the hub.
    """
    clips, sha256s = data.clips, data.sha256s
    if not head_kind(head).takes_clips:
        clips = None
    files = {i: sha256s[i] for i in data.table["video_id"] if i in sha256s}
    return {
        "head": head,
        "target": data.target,
        "seed": seed,
        "options": dict(options),
        "clips": None if clips is None else clips_digest(clips, data.table),
        "version": code_version(),
        "code": code,
        "videos": len(data.table),
        "table": table_digest(data.table),
        "set": data.spec.fingerprint,
        "official": data.official_sizes,
        "classes": len(data.classes),
        "by_reference": by_reference,
        "drop_leaks": drop_leaks,
        "files": digest_of(files) if sha256s else None,
    }


def clips_digest(clips: Mapping[str, npt.NDArray[np.float16]], table: pd.DataFrame) -> str:
    """12 hex digits of the clips of a table's rows."""
    digest = hashlib.sha256()
    for sample_id in sample_ids(table):
        if sample_id in clips:
            digest.update(repr(clips[sample_id].shape).encode() + clips[sample_id].tobytes())
    return digest.hexdigest()[:12]


def digest_of(content: Mapping[str, Any]) -> str:
    """12 hex digits of plain values."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
