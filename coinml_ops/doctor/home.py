"""The check that a home is where its databases say."""

from __future__ import annotations

from coinml.runtime.settings import Settings
from coinml_ops.doctor.finding import Finding
from coinml_ops.upkeep.moved_home import REMEDY, moves_of, said


def check_home(settings: Settings) -> Finding:
    """Whether the home was renamed, copied or mounted elsewhere since its paths were recorded."""
    moves = moves_of(settings)
    if moves:
        return Finding(subject="home", state="failed", text=said(settings, moves), remedy=REMEDY)
    return Finding(subject="home", state="ok", text=str(settings.home))
