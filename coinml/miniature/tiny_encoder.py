"""The tiny VideoMAE of this package."""

from __future__ import annotations

from pathlib import Path

ENCODER = Path(__file__).parent / "videomae-tiny"
"""Folder of the checkpoint; its README.md is the model card."""
