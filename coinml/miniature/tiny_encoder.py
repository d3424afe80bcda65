"""The tiny VideoMAE that comes with the package."""

from __future__ import annotations

from pathlib import Path

ENCODER = Path(__file__).parent / "videomae-tiny"
"""Folder of the checkpoint; its README says how it was trained and what it is good for."""
