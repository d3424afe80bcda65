"""The miniature: reproducible, in COIN's layout, with the irregularities of the official file."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coinml.data.annotations import load_dataset
from coinml.data.targets import TARGETS, examples
from coinml.media import check, probe
from coinml.miniature.dataset import draw_dataset, plan_dataset
from coinml.miniature.drawing import draw
from coinml.miniature.fault_plan import FaultPlan, demo_fault_plan
from coinml.miniature.pretraining_clips import draw_clips, random_triple
from coinml.miniature.scenes import MOTIONS, SURFACES, TOOLS, faded
from coinml.miniature.tasks import TASKS, TRIPLES


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mini")
    draw_dataset(folder, training=2, testing=1, jobs=1)
    return folder


def digests(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "videos").glob("*.mp4"))}


def test_the_videos_do_not_depend_on_the_number_of_jobs(drawn: Path, tmp_path: Path) -> None:
    other = tmp_path / "parallel"
    told: list[tuple[int, int]] = []
    draw_dataset(other, training=2, testing=1, jobs=3, progress=lambda *n: told.append(n))
    assert digests(other) == digests(drawn)
    assert (other / "COIN.json").read_text() == (drawn / "COIN.json").read_text()
    assert told[-1] == (18, 18)


def test_another_seed_draws_other_videos(drawn: Path) -> None:
    ours = {plan.video_id for plan in plan_dataset(seed=0, training=2, testing=1)}
    others = {plan.video_id for plan in plan_dataset(seed=1, training=2, testing=1)}
    assert {path.stem for path in (drawn / "videos").iterdir()} == ours
    assert not ours & others


def test_only_missing_videos_are_drawn(drawn: Path) -> None:
    before = digests(drawn)
    draw_dataset(drawn, training=2, testing=1, progress=lambda *_: pytest.fail("drew again"))
    lost = sorted((drawn / "videos").glob("*.mp4"))[0]
    lost.unlink()
    (drawn / "drawn.json").unlink()
    draw_dataset(drawn, training=2, testing=1, jobs=1)
    assert digests(drawn) == before


def test_videos_agree_with_the_annotations(drawn: Path) -> None:
    dataset = load_dataset(str(drawn / "COIN.json"), name="mini")
    assert len(dataset.videos) == 18
    for video in dataset.videos:
        path = drawn / "videos" / f"{video.video_id}.mp4"
        info, verdict = probe(path), check(path, deadline_s=None)
        assert verdict.verdict == "ok"
        assert (info.width, info.height) == (128, 96)
        assert video.duration_s is not None
        assert 3.5 <= video.duration_s <= 7
        assert verdict.duration_s == pytest.approx(video.duration_s, abs=0.05)
        assert 2 <= len(video.steps) <= 3
        assert video.steps[-1].end_s <= video.duration_s


def test_the_miniature_has_tasks_domains_and_steps(drawn: Path) -> None:
    videos = load_dataset(str(drawn / "COIN.json"), name="mini").videos
    classes = {target: {one.label for one in examples(videos, target=target)} for target in TARGETS}
    assert {target: len(names) for target, names in classes.items()} == {
        "task": 6,
        "domain": 3,
        "step": 12,
    }
    # One label has two step ids.
    assert {"slide the bar across (3)", "slide the bar across (7)"} <= classes["step"]


def test_the_default_miniature_has_the_sizes_and_irregularities_of_coin() -> None:
    plans = plan_dataset(seed=0, training=40, testing=20)
    assert Counter(plan.task.name for plan in plans) == {task.name: 60 for task in TASKS}
    assert sum(plan.subset == "testing" for plan in plans) >= 100
    ids = [plan.video_id for plan in plans]
    assert len(set(ids)) == len(ids)
    assert all(len(video_id) == 11 for video_id in ids)
    assert any(video_id.startswith("-") for video_id in ids)


def test_the_annotations_have_the_official_irregularities(drawn: Path) -> None:
    entries = list(json.loads((drawn / "COIN.json").read_text())["database"].values())
    assert any("start" not in entry for entry in entries)
    assert any(entry.get("start") == 0 and isinstance(entry["start"], int) for entry in entries)
    ids_of_label = defaultdict(set)
    for task in TASKS:
        for step in task.steps:
            ids_of_label[step.label].add(step.step_id)
    assert max(map(len, ids_of_label.values())) == 2


def test_no_single_attribute_identifies_a_task() -> None:
    for attribute in ("surface", "tool"):
        counts = Counter(getattr(task, attribute) for task in TASKS)
        assert min(counts.values()) >= 2, attribute
    motions = Counter(step.motion for task in TASKS for step in task.steps)
    assert min(motions.values()) >= 2
    looks = {(task.surface, task.tool, *(step.motion for step in task.steps)) for task in TASKS}
    assert len(looks) == len(TASKS)


def test_pretraining_never_draws_a_combination_of_a_task() -> None:
    rng = np.random.default_rng(0)
    drawn = {random_triple(rng) for _ in range(4000)}
    assert not drawn & TRIPLES
    every = {(s, t, m) for s in SURFACES for t in TOOLS for m in MOTIONS}
    assert drawn == every - TRIPLES


def test_clips_depend_only_on_seed_and_number() -> None:
    one = draw_clips(0, 7, 2, tubelet=4, grid=5)
    again, other = (draw_clips(0, number, 2, tubelet=4, grid=5) for number in (7, 8))
    assert (one.frames == again.frames).all()
    assert (one.frames != other.frames).any()
    assert one.frames.shape == (2, 16, 96, 96, 3)
    assert one.touched.shape == (2, 100)
    assert one.touched.any()
    assert not one.touched.all()


def test_the_host_accepts_the_fault_plan(tmp_path: Path) -> None:
    plans = plan_dataset(seed=0, training=40, testing=20)
    annotations = tmp_path / "COIN.json"
    annotations.write_text(json.dumps({"database": {plan.video_id: {} for plan in plans}}))
    plan = demo_fault_plan(annotations)
    assert FaultPlan.from_dict(plan)
    assert plan == demo_fault_plan(annotations)
    gone = [i for i, answers in plan["videos"].items() if answers[-1] in ("404", "410")]
    flaky = [i for i, answers in plan["videos"].items() if answers[-1] == "ok"]
    assert (len(gone), len(flaky)) == (4, 14)
    assert set(plan["videos"]) <= {one.video_id for one in plans}


def test_haze_is_the_same_whatever_the_task_and_takes_the_contrast_away() -> None:
    plans = plan_dataset(seed=0, training=40, testing=20)
    noise: dict[str, list[float]] = {task.name: [] for task in TASKS}
    for plan in plans:
        noise[plan.task.name].append(plan.scene.noise)
    means = [float(np.mean(values)) for values in noise.values()]
    assert max(means) - min(means) < 4.0
    assert all(min(values) < 6.0 and max(values) > 20.0 for values in noise.values())
    clear = plans[0].scene
    dense = faded(clear, 0.9)
    spans = [
        float(np.ptp(draw(replace(scene, noise=0.0), np.zeros(1), width=128, height=96)))
        for scene in (clear, dense)
    ]
    assert spans[1] == pytest.approx(0.1 * spans[0], abs=2)
    assert dense.noise > clear.noise
    assert faded(clear, 0.0) == clear
