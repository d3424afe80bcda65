"""Fitted heads that are not yet registered.

A head is saved before it is logged to MLflow, which may be unreachable by then. A retry, or the
next run, finds it by the digest of its recipe and continues from there.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from coinml.errors import InvalidInputError
from coinml.heads.kinds import head_file, load_head

if TYPE_CHECKING:
    from coinml.heads.protocol import Head

_KEPT_S = 14 * 86400
"""Unregistered heads older than this are deleted: their data is stale."""

_ABOUT, _SEARCH = "fit.json", "search.parquet"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedHead:
    """A fitted head and the record of its training.

    Attributes:
        head: The head, just fitted or read from its file.
        history: The metrics of each epoch; empty for heads without epochs.
        search: One row per setting that was tried; empty for heads with epochs.
        run_id: The MLflow run in which it was trained.
    """

    head: Head
    history: tuple[Mapping[str, float], ...] = ()
    search: pd.DataFrame = field(default_factory=pd.DataFrame)
    run_id: str = ""


def keep_fit(folder: Path, recipe: str, name: str, fit: FittedHead) -> None:
    """Save a fit under the digest of its recipe, atomically.

    Args:
        folder: Folder of the saved fits.
        recipe: Digest of the recipe.
        name: Name of the head.
        fit: The fit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _clear_old(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
        place = Path(temporary) / "fit"
        place.mkdir()
        fit.head.save(place / head_file(name))
        fit.search.to_parquet(place / _SEARCH)
        about = {"head": name, "run_id": fit.run_id, "history": [dict(one) for one in fit.history]}
        (place / _ABOUT).write_text(json.dumps(about), encoding="utf-8")
        # Another process may have saved the same fit first.
        with contextlib.suppress(OSError):
            place.rename(folder / recipe)


def find_fit(folder: Path, recipe: str) -> FittedHead | None:
    """The saved fit of a recipe; one that cannot be read is deleted and counts as none."""
    place = folder / recipe
    if not place.is_dir():
        return None
    try:
        about = json.loads((place / _ABOUT).read_text(encoding="utf-8"))
        return FittedHead(
            head=load_head(place / head_file(about["head"])),
            history=tuple(about["history"]),
            search=pd.read_parquet(place / _SEARCH),
            run_id=about["run_id"],
        )
    except (InvalidInputError, OSError, ValueError, KeyError) as err:
        logger.warning("%s cannot be read; the head is trained again: %s", place, err)
        forget_fit(folder, recipe)
        return None


def forget_fit(folder: Path, recipe: str) -> None:
    """Delete the saved fit of a recipe, once its model is registered."""
    shutil.rmtree(folder / recipe, ignore_errors=True)


def _clear_old(folder: Path) -> None:
    for place in folder.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - place.stat().st_mtime > _KEPT_S:
                shutil.rmtree(place)
