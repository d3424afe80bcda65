"""Small datasets in COIN's layout: annotations, and the videos for a host to serve."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path


def write_linked_coin(folder: Path, ids: Sequence[str], make_video: Callable[..., Path]) -> Path:
    """Write `COIN.json` and `videos/<id>.mp4`, hard links to one video of half a second.

    Returns:
        The path of the annotations.
    """
    (folder / "videos").mkdir(parents=True)
    first = make_video(folder / "videos" / f"{ids[0]}.mp4", seconds=0.5)
    for video_id in ids[1:]:
        os.link(first, folder / "videos" / f"{video_id}.mp4")
    return _annotate(folder, ids, duration_s=0.5)


def write_drawn_coin(folder: Path, videos: int, make_video: Callable[..., Path]) -> Path:
    """Write `COIN.json` and `videos/<id>.mp4`, each another video of one second.

    Returns:
        The path of the annotations.
    """
    (folder / "videos").mkdir(parents=True)
    ids = [f"video{number:06d}" for number in range(videos)]
    for number, video_id in enumerate(ids):
        make_video(folder / "videos" / f"{video_id}.mp4", seconds=1.0, seed=number)
    return _annotate(folder, ids, duration_s=1.0)


def _annotate(folder: Path, ids: Sequence[str], *, duration_s: float) -> Path:
    """Two classes in turn, every third video in the testing subset."""
    database = {
        video_id: {
            "class": "BoilEgg" if number % 2 else "FrySteak",
            "subset": "testing" if number % 3 == 0 else "training",
            "duration": duration_s,
            "annotation": [],
        }
        for number, video_id in enumerate(ids)
    }
    (folder / "COIN.json").write_text(json.dumps({"database": database}))
    return folder / "COIN.json"
