"""Running a study: its trials, comparisons and records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coinml.data.records import Dataset, Video
from coinml.embedding.jobs import EmbedJob
from coinml.embedding_sets.options import SetOptions
from coinml.embedding_sets.table import split_samples
from coinml.errors import InvalidInputError
from coinml.studies import figures
from coinml.studies.build_report import ReportExtras
from coinml.studies.costs import Cost, RoundTimes, measure_costs, speed_up
from coinml.studies.plans import make_plan
from coinml.studies.projections import projected_conditions
from coinml.studies.report import StudyReport, markdown
from coinml.studies.run_study import experiment_name, run_study
from coinml.studies.subsets import run_subset_trials
from coinml.studies.trials import TrialOptions
from coinml.tracking.compare_runs import compare_runs
from coinml.tracking.mlflow_store import MlflowStore
from coinml.training.train_head import model_name
from coinml.training.training_data import TrainingData
from tests.helpers.small_sets import SPEC

OPTIONS = SetOptions(encoder="tiny")


CLASSES = ("Boil", "Cut", "Fry", "Stir")
WIDTH = 24


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Overlapping classes: 60 train, 20 val and 80 test videos."""
    rng = np.random.default_rng(0)
    splits = ["train"] * 60 + ["val"] * 20 + ["test"] * 80
    y = np.arange(160) % 4
    x = rng.normal(size=(160, WIDTH)) + 1.1 * np.eye(4, WIDTH)[y] * 2
    front = {
        "video_id": [f"v{number:03d}" for number in range(160)],
        "label": [CLASSES[k] for k in y],
        "split": splits,
    }
    features = pd.DataFrame(x.astype(np.float32), columns=[f"e{i:04d}" for i in range(WIDTH)])
    return pd.concat([pd.DataFrame(front), features], axis=1)


@pytest.fixture(scope="module")
def dataset(table: pd.DataFrame) -> Dataset:
    rows = zip(table["video_id"], table["label"], table["split"], strict=True)
    return Dataset(
        name="toy",
        origin="here",
        videos=tuple(
            Video(
                video_id=video_id,
                label=label,
                split=split,
                subset="testing" if split == "test" else "training",
            )
            for video_id, label, split in rows
        ),
    )


def studied(
    store: MlflowStore,
    dataset: Dataset,
    tables: dict[str, pd.DataFrame],
    study: str,
    *asked: str,
    **more: object,
) -> StudyReport:
    extras = {name: more.pop(name) for name in ("costs", "predicted_sizes") if name in more}
    return run_study(
        make_plan(study, OPTIONS, asked),
        {
            name: TrainingData(dataset=dataset, table=table, spec=SPEC)
            for name, table in tables.items()
        },
        store=store,
        extras=ReportExtras(**extras),
        **{"heads": ("svm",), "seeds": 2, **more},
    )


def cost(condition: str, *encode_s: float) -> Cost:
    rounds = tuple(
        RoundTimes(decode_s=1.0, encode_s=seconds, encode_cpu_s=0.0) for seconds in encode_s
    )
    return Cost(condition=condition, videos=4, clips=32, frames=9, rounds=rounds, load=3.5)


@pytest.mark.parametrize(
    ("encode_s", "shown"),
    [
        ([1.0] * 6, True),
        ([3.0] * 6, True),
        # One round of six says the opposite.
        ([1.0] * 5 + [3.0], False),
        ([2.0] * 6, False),
        # Five rounds agree by chance in 6 % of all studies.
        ([1.0] * 5, False),
    ],
)
def test_a_speed_up_is_claimed_where_every_round_shows_it(
    encode_s: list[float],
    shown: bool,
    store: MlflowStore,
    dataset: Dataset,
    table: pd.DataFrame,
) -> None:
    costs = [cost("8", *[2.0] * len(encode_s)), cost("2", *encode_s)]
    assert speed_up(*costs).excludes_1 == shown
    report = studied(store, dataset, {"8": table, "2": table}, "clips", "2", costs=costs)
    (sentence,) = report.conclusions
    assert ("embeds faster or slower is not shown" in sentence) != shown
    assert ("| not shown [" in markdown(report)) != shown
    row = report.table().set_index("condition").loc["2"]
    assert row["encode_s_low"] == min(encode_s)
    assert row["encode_s_high"] == max(encode_s)
    assert (row["load"], row["rounds"]) == (3.5, len(encode_s))
    assert row["fit_s_low"] <= row["fit_s"] <= row["fit_s_high"]


def test_dimensions_are_capped_by_the_data(table: pd.DataFrame) -> None:
    parts = split_samples(table)
    made = projected_conditions(parts, (2, 16, 512))
    assert [condition.name for condition, _ in made] == [
        "PCA 2",
        "PCA 16",
        "PCA 23",
        "LDA 2",
        "LDA 3",
        "all",
    ]
    for condition, projected in made:
        centred = projected["train"].x - projected["train"].x.mean(axis=0)
        assert np.linalg.matrix_rank(centred, tol=1e-3) == condition.value
    few = {**parts, "train": parts["train"].take(np.arange(8))}
    assert [c.name for c, _ in projected_conditions(few, (2, 16))] == [
        "PCA 2",
        "PCA 7",
        "LDA 2",
        "LDA 3",
        "all",
    ]
    one_each = {**parts, "train": parts["train"].take(np.arange(4))}
    assert [c.name for c, _ in projected_conditions(one_each, (2,))] == ["PCA 2", "all"]


def test_nearly_all_of_pca_is_nearly_the_embedding(table: pd.DataFrame) -> None:
    parts = split_samples(table)
    ((_, projected), *_) = projected_conditions(parts, (WIDTH - 1,))
    scaled = (parts["test"].x - parts["train"].x.mean(axis=0)) / parts["train"].x.std(axis=0)
    assert np.corrcoef(projected["test"].x.ravel(), scaled.ravel())[0, 1] > 0.98


def test_projections_are_fitted_on_training_videos_only(table: pd.DataFrame) -> None:
    parts = split_samples(table)
    before = dict(projected_conditions(parts, (3,))[0][1])
    moved = {**parts, "test": parts["test"].take(np.arange(5))}
    after = dict(projected_conditions(moved, (3,))[0][1])
    np.testing.assert_array_equal(before["train"].x, after["train"].x)
    np.testing.assert_array_equal(before["test"].x[:5], after["test"].x)


def test_a_data_study_has_a_rising_curve_a_power_law_and_nested_runs(
    store: MlflowStore, dataset: Dataset, table: pd.DataFrame, tmp_path: Path
) -> None:
    report = studied(
        store,
        dataset,
        {"100 %": table},
        "data",
        "10",
        "25",
        "50",
        heads=("svm", "knn"),
        predicted_sizes={500: "all there is"},
    )
    rows = report.of("svm")
    assert [row.train_videos for row in rows] == [6, 15, 30, 60]
    assert [row.fits for row in rows] == [2, 2, 2, 1]
    assert rows[-1].test.value > rows[0].test.value + 0.1
    assert rows[0].difference is not None
    assert rows[0].difference.shown
    assert set(report.laws) == {"svm", "knn"}
    assert [(p.head, p.train_videos) for p in report.predictions] == [("svm", 500), ("knn", 500)]
    said = str(report)
    assert "From 6 to 60 training videos" in said
    assert "From 30 to 60 training videos" in said
    assert "with 500 training videos (all there is)" in said
    assert "svm less knn with all training videos" in said
    experiment = experiment_name("toy")
    nested = store.find_runs(experiment, {"mlflow.parentRunId": report.run_id})
    assert len(nested) == 14
    child = store.read_run(nested[0])
    logged = set(child.data.metrics)
    assert {"val/accuracy", "test/accuracy", "test_interval/accuracy_low", "time/fit_s"} <= logged
    assert len(store.read_table(nested[0], "predictions")) == 100
    assert compare_runs(store, nested[0], nested[-1]).result.n == 80
    parent = store.read_run(report.run_id)
    assert "condition/test_accuracy" in parent.data.metrics
    assert parent.data.tags["conclusion"] == said
    assert report.question in parent.data.tags["mlflow.note.content"]
    assert len(store.read_table(report.run_id, "conditions")) == 8
    files = store.client().list_artifacts(report.run_id, "figures")
    assert [file.path for file in files] == ["figures/data.png"]


def test_heads_that_draw_random_numbers_are_trained_with_each_seed(
    table: pd.DataFrame,
) -> None:
    parts = split_samples(table)
    (whole,) = make_plan("data", OPTIONS, ("100",)).conditions
    fits = list(
        run_subset_trials(
            parts,
            [whole],
            TrialOptions(
                heads=("mlp", "svm"),
                seeds=2,
                official_sizes={"train": 60, "val": 20, "test": 80},
            ),
        )
    )
    assert [(fit.head, fit.seed) for fit in fits] == [("mlp", 0), ("svm", 0), ("mlp", 1)]
    assert all(fit.train_videos == 60 and fit.dim == WIDTH for fit in fits)


def test_a_head_that_takes_clips_is_refused_for_projections(
    store: MlflowStore, dataset: Dataset, table: pd.DataFrame
) -> None:
    with pytest.raises(InvalidInputError, match="attentive takes clips"):
        studied(store, dataset, {"all": table}, "dims", heads=("svm", "attentive"))


def test_a_study_does_not_change_the_heads_experiment_or_the_registry(
    store: MlflowStore, dataset: Dataset, table: pd.DataFrame
) -> None:
    report = studied(store, dataset, {"all": table}, "dims", "2", "4")
    assert store.find_runs(model_name("toy"), {"dataset": "toy"}, finished=False) == []
    assert list(store.client().search_registered_models()) == []
    assert "PCA to" in str(report)
    assert [row.condition.name for row in report.rows][-1] == "all"


def test_conditions_are_compared_on_the_videos_that_all_of_them_have(
    store: MlflowStore, dataset: Dataset, table: pd.DataFrame
) -> None:
    noisy = table.copy()
    noisy[[f"e{i:04d}" for i in range(WIDTH)]] += (
        np.random.default_rng(1).normal(0, 4, (160, WIDTH)).astype(np.float32)
    )
    costs = [
        cost(name, *(encode_s * noise for noise in (1.0, 1.1, 0.9, 1.0, 1.0, 1.0)))
        for name, encode_s in (("100 %", 7.0), ("25 %", 1.0))
    ]
    report = studied(
        store, dataset, {"100 %": table, "25 %": noisy.iloc[:-7]}, "tokens", "0.25", costs=costs
    )
    assert report.test_videos == 73
    whole, part = report.rows
    assert whole.difference is None
    assert part.difference is not None
    assert part.difference.value.high < 0
    (sentence,) = report.conclusions
    assert sentence.startswith("Keeping 25 % of the tokens costs ")
    assert sentence.endswith(
        "embeds 4 [3.84, 4.14] times as fast (decoding 1 [1, 1], encoding 7 [7, 7])."
    )
    assert "4 [3.84, 4.14] |" in markdown(report)
    assert "The machine's load average was 3.5 on" in markdown(report)
    assert "| 25 % | svm |" in markdown(report)


def test_videos_of_one_group_count_once_in_a_studys_intervals_and_tests(
    store: MlflowStore, dataset: Dataset, table: pd.DataFrame
) -> None:
    whole = studied(store, dataset, {"all": table}, "dims", "4")
    people = [f"p{number // 20}" for number in range(len(table))]
    report = studied(store, dataset, {"all": table.assign(group=people)}, "dims", "4")
    for row, alone in zip(report.rows, whole.rows, strict=True):
        assert row.test.value == alone.test.value
        # The 80 test videos are of four people.
        assert row.test.caveat == "4 groups: too few for an interval"
        assert row.test.low < alone.test.low
        if row.difference is not None:
            assert alone.difference is not None
            assert row.difference.p_value >= alone.difference.p_value
    assert "over the groups (--group) of the test videos: 4." in " ".join(report.notes)
    assert "too few for an interval" in str(report)
    assert not any("--group" in note for note in whole.notes)


def test_in_resolution_one_head_is_measured_on_every_version(
    store: MlflowStore, dataset: Dataset, table: pd.DataFrame
) -> None:
    tests = table[table["split"] == "test"]
    report = studied(store, dataset, {"original": table, "144p": tests}, "resolution", "144")
    row = report.rows[0]
    assert row.condition.name == "144p"
    assert row.difference is not None
    assert (row.difference.value.value, row.difference.p_value) == (0, 1)
    assert "A picture of 144 rows costs 0.0 points" in str(report)


def test_conditions_without_a_common_video_are_refused(
    store: MlflowStore, dataset: Dataset, table: pd.DataFrame
) -> None:
    with pytest.raises(InvalidInputError, match="no video is embedded under every condition"):
        studied(store, dataset, {"100 %": table[:80], "25 %": table[80:]}, "tokens", "0.25")


def test_an_interrupted_study_keeps_its_trials(
    store: MlflowStore, dataset: Dataset, table: pd.DataFrame
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        studied(store, dataset, {"100 %": table}, "data", on_fit=stop)
    assert len(store.find_runs(experiment_name("toy"), {"condition": "5 %"})) == 1
    (parent,) = set(
        store.find_runs(experiment_name("toy"), {"study": "data"}, finished=False)
    ) - set(store.find_runs(experiment_name("toy"), {"condition": "5 %"}))
    assert store.read_run(parent).info.status == "KILLED"


def test_a_studys_figure_names_its_conditions(
    store: MlflowStore, dataset: Dataset, table: pd.DataFrame
) -> None:
    tables = {"8": table, "2": table}
    costs = [cost(name, *[2.0] * 6) for name in tables]
    report = studied(store, dataset, tables, "clips", "2", costs=costs)
    figure = figures.draw(report)
    labels = {label.get_text() for axis in figure.axes for label in axis.get_yticklabels()}
    assert {"2", "8"} <= labels
    assert any("ms per video" in axis.get_xlabel() for axis in figure.axes)


def test_costs_are_measured_on_the_same_videos_without_broken_ones(
    make_video: Callable[..., Path], tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    paths = [str(make_video(tmp_path / f"{n}.mp4", seconds=1.0, seed=n)) for n in range(3)]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(Path(paths[0]).read_bytes()[:300])
    plan = make_plan("clips", SetOptions(encoder=str(tiny_encoder_dir), clips=2), ("1",))
    ticks: list[int] = []
    jobs = [EmbedJob(video_id=path, path=path, file_sha256="") for path in [*paths, str(broken)]]
    found = measure_costs(
        jobs,
        plan.conditions,
        device="cpu",
        rounds=2,
        on_video=lambda: ticks.append(1),
    )
    assert [(cost.condition, cost.videos, cost.clips) for cost in found] == [
        ("1", 3, 3),
        ("2", 3, 6),
    ]
    assert all(cost.decode_s.low > 0 and cost.encode_s.low > 0 for cost in found)
    assert all(len(cost.rounds) == 2 and cost.load >= 0 for cost in found)
    assert not speed_up(*found).excludes_1
    assert found[1].frames >= found[0].frames > 0
    assert len(ticks) == 4 + 3 + 2 * (3 + 3)
