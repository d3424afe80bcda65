"""The size of the pictures that encoders see, read without loading one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from coinml.encoder.architectures import ARCHITECTURES


def input_size_px(spec_files: Iterable[Path]) -> int:
    """Shorter side in pixels of the pictures that the encoders of embedding sets see.

    It is the largest where they differ, and the default encoder's (VideoMAE's) where there is none.

    Args:
        spec_files: The `spec.json` of each set.
    """
    sizes = []
    for path in spec_files:
        try:
            sizes.append(min(map(int, json.loads(path.read_bytes())["encoder"]["crop"])))
        except (OSError, ValueError, KeyError, TypeError):
            # `coinml embeddings` says what is wrong with a set.
            continue
    return max(sizes, default=int(ARCHITECTURES["videomae"].defaults["image_size"]))
