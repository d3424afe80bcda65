"""Writing the miniature to disk: annotations in COIN's layout and one file per video."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from coinml.data.taxonomy import DOMAIN_COLUMNS, DOMAIN_CSV, STEP_COLUMNS, STEP_CSV
from coinml.media import write_video
from coinml.miniature.drawing import draw
from coinml.miniature.scenes import FRAME_RATES, Scene, faded, random_motion, random_scene
from coinml.miniature.tasks import TASKS, Task, TaskStep
from coinml.runtime.atomic_files import write_whole
from coinml.runtime.cpus import cpu_count
from coinml.runtime.escaping import csv_of_rows

WIDTH, HEIGHT = 128, 96
_ID_LETTERS = list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_FRAMES_AT_ONCE = 32
_SHORTEST_S, _LONGEST_S = 3.5, 7.0
_DENSEST_HAZE = 0.9
"""Each video has a haze of its own, up to this. Clear videos are easy and hazy ones are guesses, so
that heads differ and their scores can be calibrated."""
_MARKER = "drawn.json"
_FORM = 2
"""Version of the drawing; videos of another version have other ids, and are drawn again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedVideo:
    """One video before it is drawn.

    Attributes:
        video_id: 11 characters, as at YouTube.
        task: The task that it shows.
        subset: "training" or "testing".
        fps: Frames per second.
        duration_s: Length in seconds, a whole number of frames.
        segments: (step, start in seconds, end in seconds), in order.
        scene: The scene.
    """

    video_id: str
    task: Task
    subset: str
    fps: int
    duration_s: float
    segments: tuple[tuple[TaskStep, float, float], ...]
    scene: Scene


def draw_dataset(
    folder: Path,
    *,
    seed: int = 0,
    training: int = 40,
    testing: int = 20,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw the missing videos of the miniature and write its annotations.

    Args:
        folder: Gets `COIN.json`, the taxonomy's two sheets and `videos/<id>.mp4`.
        seed: Another seed gives other videos of the same six tasks.
        training: Training videos per task.
        testing: Testing videos per task.
        jobs: Number of drawing processes; one per CPU if None. The result does not depend on it.
        progress: Called with the number of drawn videos and the total.

    Returns:
        The path of the annotations, in COIN's official layout.
    """
    annotations = write_annotations(folder, seed=seed, training=training, testing=testing)
    marker = folder / _MARKER
    wanted = _drawing(seed, training, testing)
    if _is_drawn(marker, wanted):
        return annotations
    videos = folder / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    # Videos of another seed or version do not belong to these annotations.
    if marker.is_file():
        for old in videos.glob("*.mp4"):
            old.unlink()
    plans = plan_dataset(seed=seed, training=training, testing=testing)
    todo = [plan for plan in plans if not (videos / f"{plan.video_id}.mp4").is_file()]
    _draw_all(todo, videos, jobs=jobs or cpu_count(), total=len(plans), progress=progress)
    write_whole(marker, _json_text(wanted))
    return annotations


def write_annotations(
    folder: Path, *, seed: int = 0, training: int = 40, testing: int = 20
) -> Path:
    """Write the annotations and the taxonomy of the miniature, whose videos need not be drawn.

    Args:
        folder: As for `draw_dataset`.
        seed: As for `draw_dataset`.
        training: Training videos per task.
        testing: Testing videos per task.

    Returns:
        The path of the annotations. A file that has this content already is left as it is.
    """
    annotations = folder / "COIN.json"
    folder.mkdir(parents=True, exist_ok=True)
    # Always written: it is small, and older versions did not write it.
    _write_taxonomy(folder)
    if not _is_drawn(folder / _MARKER, _drawing(seed, training, testing)):
        plans = plan_dataset(seed=seed, training=training, testing=testing)
        database = {plan.video_id: _entry(plan, number) for number, plan in enumerate(plans)}
        _write_if_new(annotations, _json_text({"database": database}))
    return annotations


def _drawing(seed: int, training: int, testing: int) -> dict[str, int]:
    """What the marker of a folder says when all of its videos are drawn."""
    return {"form": _FORM, "seed": seed, "training": training, "testing": testing}


def _is_drawn(marker: Path, wanted: dict[str, int]) -> bool:
    return marker.is_file() and json.loads(marker.read_text()) == wanted


def plan_dataset(*, seed: int, training: int, testing: int) -> list[PlannedVideo]:
    """All videos, as determined by the seed."""
    plans = []
    for task in TASKS:
        for number in range(training + testing):
            subset = "training" if number < training else "testing"
            rng = np.random.default_rng([seed, task.recipe_type, number, _FORM])
            plans.append(_plan(rng, task, subset))
    return plans


def draw_video(plan: PlannedVideo, folder: Path) -> Path:
    """Draw one video; the file appears under its name when it is complete."""
    times_s = np.arange(round(plan.duration_s * plan.fps)) / plan.fps
    frames = (
        frame
        for start in range(0, len(times_s), _FRAMES_AT_ONCE)
        for frame in draw(
            plan.scene, times_s[start : start + _FRAMES_AT_ONCE], width=WIDTH, height=HEIGHT
        )
    )
    return write_video(folder / f"{plan.video_id}.mp4", frames, fps=plan.fps, gop=48)


def _plan(rng: np.random.Generator, task: Task, subset: str) -> PlannedVideo:
    letters = rng.choice(_ID_LETTERS, size=11)
    # Real ids can begin with a dash, which looks like an option of a command.
    if rng.random() < 0.02:
        letters[0] = "-"
    fps = int(rng.choice(FRAME_RATES))
    duration_s = round(float(rng.uniform(_SHORTEST_S, _LONGEST_S)) * fps) / fps
    segments = _segments(rng, task.steps, duration_s)
    motions = [
        random_motion(rng, step.motion, start_s=start_s, end_s=end_s)
        for step, start_s, end_s in segments
    ]
    clear = random_scene(rng, surface=task.surface, tool=task.tool, motions=motions)
    return PlannedVideo(
        video_id="".join(letters),
        task=task,
        subset=subset,
        fps=fps,
        duration_s=duration_s,
        segments=segments,
        scene=faded(clear, float(rng.uniform(0.0, _DENSEST_HAZE))),
    )


def _segments(
    rng: np.random.Generator, steps: Sequence[TaskStep], duration_s: float
) -> tuple[tuple[TaskStep, float, float], ...]:
    """Two or three segments that alternate the task's steps, with short rests between them."""
    count = int(rng.integers(2, 4 if duration_s > 5.5 else 3))
    rests = rng.uniform(0.05, 0.25, size=count + 1)
    lengths = rng.uniform(0.8, 1.2, size=count)
    lengths *= (duration_s - rests.sum()) / lengths.sum()
    segments = []
    now = 0.0
    for index in range(count):
        start_s = now + rests[index]
        now = start_s + lengths[index]
        step = steps[index % len(steps)]
        segments.append((step, round(float(start_s), 2), round(float(now), 2)))
    return tuple(segments)


def _entry(plan: PlannedVideo, number: int) -> dict[str, Any]:
    """An annotation in COIN's layout, with the irregularities of the official file."""
    entry: dict[str, Any] = {
        "recipe_type": plan.task.recipe_type,
        "annotation": [
            {"id": step.step_id, "segment": [start_s, end_s], "label": step.label}
            for step, start_s, end_s in plan.segments
        ],
        "video_url": f"https://www.youtube.com/embed/{plan.video_id}",
        "start": plan.segments[0][1],
        "end": plan.segments[-1][2],
        "duration": plan.duration_s,
        "class": plan.task.name,
        "subset": plan.subset,
    }
    if number % 7 == 3:
        entry["start"] = 0
    if number % 12 == 5:
        del entry["start"], entry["end"]
    return entry


def _write_taxonomy(folder: Path) -> None:
    """Write the two sheets of the taxonomy as CSV beside the annotations."""
    domains = [(task.domain, task.name) for task in TASKS]
    steps = [
        (str(task.recipe_type), task.name, step.step_id, step.label)
        for task in TASKS
        for step in task.steps
    ]
    for name, columns, rows in (
        (DOMAIN_CSV, DOMAIN_COLUMNS, domains),
        (STEP_CSV, STEP_COLUMNS, steps),
    ):
        _write_if_new(folder / name, csv_of_rows([columns, *rows]))


def _draw_all(
    plans: Sequence[PlannedVideo],
    folder: Path,
    *,
    jobs: int,
    total: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    done = total - len(plans)
    if jobs == 1 or len(plans) < 2:
        for plan in plans:
            draw_video(plan, folder)
            done += 1
            if progress is not None:
                progress(done, total)
        return
    # Spawned, not forked: the caller may have threads, and forking those can hang.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        try:
            for future in as_completed([pool.submit(draw_video, plan, folder) for plan in plans]):
                future.result()
                done += 1
                if progress is not None:
                    progress(done, total)
        except BaseException:
            # Stop at once, without drawing the remaining videos.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write_if_new(path: Path, text: str) -> None:
    """Write a file unless it has this content: annotations are read again when they change."""
    if not path.is_file() or path.read_text() != text:
        write_whole(path, text)


def _json_text(content: Any) -> str:
    return json.dumps(content, indent=1) + "\n"
