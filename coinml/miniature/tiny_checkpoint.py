"""Path of the tiny VideoMAE checkpoint that comes with this package."""

from __future__ import annotations

from pathlib import Path

TINY_CHECKPOINT = Path(__file__).parent / "videomae-tiny"
"""Folder of the checkpoint; its README.md is the model card."""
