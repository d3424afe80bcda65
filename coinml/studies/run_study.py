"""Running a study on what is embedded: one MLflow run per trial, nested in the study's own run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from coinml.data.records import SPLITS, Split, Target
from coinml.embedding_sets.table import ids_digest, split_samples
from coinml.errors import InvalidInputError
from coinml.heads.kinds import head_kind
from coinml.studies import figures
from coinml.studies.build_report import ReportExtras, build_report
from coinml.studies.plans import Condition, StudyPlan
from coinml.studies.projections import projected_conditions
from coinml.studies.report import StudyReport, markdown
from coinml.studies.subsets import run_subset_trials
from coinml.studies.trials import (
    Parts,
    TrialOptions,
    TrialResult,
    run_trained_once,
    run_trials,
)
from coinml.tracking.metric_names import CONDITION
from coinml.tracking.mlflow_store import MlflowStore, home_store
from coinml.tracking.run_log import RunLog
from coinml.tracking.run_origin import code_version
from coinml.tracking.test_looks import TEST_IDS_DIGEST
from coinml.training.looks import studies_experiment
from coinml.training.train_head import model_name
from coinml.training.training_data import TrainingData


def experiment_name(dataset: str, target: Target = "task") -> str:
    """Name of the experiment with a dataset's studies; heads have an experiment of their own."""
    return studies_experiment(model_name(dataset, target))


def run_study(
    plan: StudyPlan,
    data: Mapping[str, TrainingData],
    *,
    heads: Sequence[str],
    seeds: int,
    device: str = "cpu",
    store: MlflowStore | None = None,
    extras: ReportExtras | None = None,
    tags: Mapping[str, str] | None = None,
    on_fit: Callable[[], None] | None = None,
) -> StudyReport:
    """Train and measure under every condition; log runs, table, figure and conclusions to MLflow.

    No model is registered. Only videos that every condition has are used.

    Args:
        plan: What is compared.
        data: The embeddings by condition; `data` and `dims` have those of the reference alone.
        heads: Names of the heads.
        seeds: Trainings of each head that draws random numbers; in `data`, of every head.
        device: `cpu`, `cuda`, `cuda:1` or `auto`, for heads with epochs.
        store: Where the runs go; by default this home's MLflow store.
        extras: What the report has besides the heads' answers.
        tags: More tags for the study's run.
        on_fit: Called after each trial.

    Raises:
        InvalidInputError: A split is empty, or training has fewer than two classes.
    """
    store, reference = store or home_store(), data[plan.reference]
    parts = _common_parts(plan, data)
    options = TrialOptions(
        heads=heads, seeds=seeds, device=device, official_sizes=_official_videos(reference)
    )
    conditions, trials = _trials(plan, parts, options)
    dataset, target = reference.dataset.name, reference.target
    experiment = experiment_name(dataset, target)
    identity = {
        "study": plan.study,
        "dataset": dataset,
        "target": target,
        "code_version": code_version(),
        TEST_IDS_DIGEST: ids_digest(parts[plan.reference]["test"].ids),
    }
    with store.run(
        experiment,
        f"study {plan.study}",
        tags={**(tags or {}), **identity, "kind": "study"},
        about=f"Studies on {target}s of **{dataset}**: what more data, fewer clips and so on "
        "change. Each study is a run with its conclusions, figure and table, and contains its "
        "trials.",
    ) as log:
        log.params({"heads": ",".join(heads), "seeds": seeds})
        log.json("sets", {name: one.spec.fingerprint for name, one in data.items()})
        results: list[TrialResult] = []
        for result in trials:
            _log_trial(store, experiment, identity, log.run_id, result)
            results.append(result)
            if on_fit is not None:
                on_fit()
        report = build_report(plan, conditions, results, dataset=dataset, extras=extras)
        report = replace(report, experiment=experiment, run_id=log.run_id)
        _log_report(log, report)
    return report


def _official_videos(data: TrainingData) -> dict[Split, int]:
    videos = data.dataset.videos
    return {split: sum(video.split == split for video in videos) for split in SPLITS}


def _common_parts(plan: StudyPlan, data: Mapping[str, TrainingData]) -> dict[str, Parts]:
    """The videos that all conditions have, by condition and split."""
    if plan.study == "resolution":
        # Only test videos were re-encoded; the head is trained on the originals.
        own = data[plan.reference]
        data = {name: one if one is own else _with_training(one, own) for name, one in data.items()}
    shared = set.intersection(*(set(one.table["video_id"]) for one in data.values()))
    if not shared:
        raise InvalidInputError("no video is embedded under every condition")
    classes = sorted({*data[plan.reference].table["label"]})
    return {
        name: split_samples(
            one.table[one.table["video_id"].isin(shared)].sort_values("video_id"),
            classes,
            clips=one.clips,
        )
        for name, one in data.items()
    }


def _with_training(tests: TrainingData, own: TrainingData) -> TrainingData:
    trained_on = own.table[own.table["split"] != "test"]
    clips = None
    if tests.clips is not None and own.clips is not None:
        clips = {**own.clips, **tests.clips}
    return replace(tests, table=pd.concat([trained_on, tests.table]), clips=clips)


def _trials(
    plan: StudyPlan, parts: Mapping[str, Parts], options: TrialOptions
) -> tuple[Sequence[Condition], Iterator[TrialResult]]:
    """The conditions, and the results of their trials, one after the other."""
    own = parts[plan.reference]
    if plan.study == "data":
        return plan.conditions, run_subset_trials(own, plan.conditions, options)
    if plan.study == "dims":
        takes_clips = [head for head in options.heads if head_kind(head).takes_clips]
        if takes_clips:
            raise InvalidInputError(
                f"study dims: {', '.join(takes_clips)} takes clips, but only the clips' means are "
                "projected"
            )
        made = projected_conditions(own, plan.values)
    else:
        made = [(condition, parts[condition.name]) for condition in plan.conditions]
    run = run_trained_once if plan.study == "resolution" else run_trials
    return [condition for condition, _ in made], run(made, options)


def _log_trial(
    store: MlflowStore,
    experiment: str,
    identity: Mapping[str, str],
    parent_run_id: str,
    result: TrialResult,
) -> None:
    own = {"kind": "fit", "condition": result.condition, "head": result.head}
    name = f"{result.condition} {result.head} s{result.seed}"
    with store.run(experiment, name, tags={**identity, **own}, parent_run_id=parent_run_id) as log:
        log.params(
            {
                "condition": result.condition,
                "head": result.head,
                "seed": result.seed,
                "train_videos": result.train_videos,
                "dim": result.dim,
            }
        )
        metrics = {"fit_s": result.fit_s}
        for split, evaluation in result.evaluations.items():
            metrics |= evaluation.metrics(split)
        log.metrics(metrics)
        log.table("predictions", result.predictions)


def _log_report(log: RunLog, report: StudyReport) -> None:
    log.table("conditions", report.table())
    log.json("study", report.as_dict())
    log.figure(report.study, figures.draw(report))
    # One step per condition: the run's page then draws the accuracy over the conditions.
    log.history(
        [
            {
                "test_accuracy": row.test.value,
                "test_accuracy_low": row.test.low,
                "test_accuracy_high": row.test.high,
                "val_accuracy": row.val.value,
            }
            for row in report.of(report.head)
        ],
        group=CONDITION,
    )
    log.tags(
        {
            "head": report.head,
            "conclusion": str(report)[:4000],
            "mlflow.note.content": markdown(report),
        }
    )
