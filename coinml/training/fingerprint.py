"""What a trained head was made of, as digests: equal ones need no second training."""

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

from coinml.embedding_sets.table import sample_ids

_PACKAGE = Path(__file__).parents[1]
_DECISIVE = (
    "data/targets.py",
    "embedding_sets/table.py",
    "evaluation",
    "heads",
    "training/fingerprint.py",
    "training/train_head.py",
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
