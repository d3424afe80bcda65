"""A COIN of many ids and one short video: what collecting costs, without the drawing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path


def write_linked_coin(folder: Path, ids: Sequence[str], make_video: Callable[..., Path]) -> Path:
    """Write `COIN.json` and `videos/<id>.mp4`, all of them hard links to one file.

    Returns:
        The annotations: two classes in turn, every third video on the test side.
    """
    (folder / "videos").mkdir(parents=True)
    first = make_video(folder / "videos" / f"{ids[0]}.mp4", seconds=0.5)
    for video_id in ids[1:]:
        os.link(first, folder / "videos" / f"{video_id}.mp4")
    database = {
        video_id: {
            "class": "BoilEgg" if number % 2 else "FrySteak",
            "subset": "testing" if number % 3 == 0 else "training",
            "duration": 0.5,
            "annotation": [],
        }
        for number, video_id in enumerate(ids)
    }
    (folder / "COIN.json").write_text(json.dumps({"database": database}))
    return folder / "COIN.json"
