"""Draws the README's picture from the last `make demo`: `.venv/bin/python docs/draw_demo.py`.

Left a frame of each of the miniature's six tasks, right what the champion answered on test.
"""

from __future__ import annotations

import json
from pathlib import Path

import av
import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from coinml.registry.versions import CHAMPION, version_at
from coinml.runtime.settings import Settings
from coinml.selection import miniature_dir
from coinml.tracking.mlflow_store import MlflowStore

PICTURE = Path(__file__).parent / "images" / "demo.png"


def main() -> None:
    """Write `docs/images/demo.png`."""
    settings = Settings()
    drawn = miniature_dir(settings.data_dir)
    database = json.loads((drawn / "COIN.json").read_text())["database"]
    examples = {entry["class"]: video_id for video_id, entry in reversed(database.items())}
    tasks = sorted(examples)

    figure = plt.figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.05, 1))
    for axes, task in zip(left.subplots(2, 3).flat, tasks, strict=True):
        axes.imshow(_middle_frame(drawn / "videos" / f"{examples[task]}.mp4"))
        axes.set_title(task, fontsize=9)
        axes.set_axis_off()
    _draw_answers(right.subplots(), _champions_answers(settings), tasks)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


def _middle_frame(path: Path) -> np.ndarray:
    with av.open(path) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.asarray(frames[len(frames) // 2])


def _champions_answers(settings: Settings) -> pd.DataFrame:
    store = MlflowStore(uri=settings.tracking_uri, artifact_root=settings.artifact_root)
    champion = version_at(store, "mini-task", CHAMPION)
    if champion is None:
        raise SystemExit("mini-task has no champion: run `make demo` first")
    answers = store.read_table(str(champion.run_id), "predictions")
    return answers[answers["split"] == "test"]


def _draw_answers(axes: Axes, answers: pd.DataFrame, tasks: list[str]) -> None:
    counts = pd.crosstab(answers["label"], answers["predicted"])
    counts = counts.reindex(index=tasks, columns=tasks, fill_value=0)
    axes.imshow(counts, cmap="Blues")
    for row, column in np.ndindex(counts.shape):
        count = counts.iloc[row, column]
        colour = "white" if count > counts.to_numpy().max() / 2 else "black"
        axes.text(column, row, str(count or ""), ha="center", va="center", color=colour)
    axes.set_xticks(range(len(tasks)), tasks, rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(tasks)), tasks, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    right = (answers["label"] == answers["predicted"]).mean()
    axes.set_title(f"champion: {right:.0%} of {len(answers)} test videos right", fontsize=10)


if __name__ == "__main__":
    main()
