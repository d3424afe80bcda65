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

from coinml.dataset import sample_ids

_DECISIVE = (
    "dataset",
    "evaluation/__init__",
    "evaluation/calibration",
    "evaluation/class_counts",
    "evaluation/intervals",
    "evaluation/leaks",
    "heads/attentive",
    "heads/baselines",
    "heads/fitting",
    "heads/learning",
    "heads/mlp",
    "heads/network",
    "heads/pairwise",
    "heads/svm",
    "heads/svm_search",
    "targets",
    "recipe",
    "training",
)
"""The modules that decide what a head learns and how it is measured."""


@cache
def code_digest() -> str:
    """Of the modules that decide what a head learns and how it is measured."""
    digest = hashlib.sha256()
    for module in _DECISIVE:
        digest.update((Path(__file__).parent / f"{module}.py").read_bytes())
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
