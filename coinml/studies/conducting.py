"""Running a study on what is embedded: a run a training, nested in the study's own run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from coinml.data.records import SPLITS, Dataset, Split, Target
from coinml.embedding_sets.table import Samples, ids_digest, split_samples
from coinml.errors import InvalidInputError
from coinml.heads.kinds import head_kind
from coinml.studies import figures
from coinml.studies.costs import Cost
from coinml.studies.plans import Condition, Plan
from coinml.studies.projections import projected_conditions
from coinml.studies.report import StudyReport, markdown
from coinml.studies.sources import Source
from coinml.studies.subsets import fit_subsets
from coinml.studies.summarising import summarise
from coinml.studies.trials import Fit, fit_conditions, fit_once
from coinml.tracking.mlflow_store import MlflowStore, code_version
from coinml.tracking.run_log import RunLog
from coinml.training.train_head import model_name

Parts = Mapping[Split, Samples]


def experiment_name(dataset: str, target: Target = "task") -> str:
    """Where a dataset's studies are: beside its heads' experiment, which stays for heads."""
    return f"{model_name(dataset, target)}-studies"


def conduct(
    plan: Plan,
    sources: Mapping[str, Source],
    *,
    dataset: Dataset,
    target: Target = "task",
    store: MlflowStore,
    heads: Sequence[str],
    seeds: int,
    device: str = "cpu",
    costs: Sequence[Cost] = (),
    wanted_sizes: Mapping[int, str] | None = None,
    notes: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    on_fit: Callable[[], None] | None = None,
) -> StudyReport:
    """Train and measure under every condition; runs, table, figure and answer go to MLflow.

    No model is registered. Only videos that every condition has take part.

    Args:
        plan: What is compared.
        sources: What is embedded, by condition; `data` and `dims` have that of the reference
            alone.
        dataset: Says how many videos each split has officially.
        target: Whose classes.
        store: Where the runs go.
        heads: Which heads.
        seeds: Trainings of each head that draws random numbers; in `data`, of every head.
        device: For heads that use one.
        costs: What embedding takes, by condition.
        wanted_sizes: In `data`, training sizes to predict the error of, and why these.
        notes: For the reader.
        tags: More tags for the study's run.
        on_fit: Called after each training.

    Raises:
        InvalidInputError: A split is empty, or training has fewer than two classes.
    """
    parts = _parts(plan, sources)
    official: dict[Split, int] = {
        split: sum(video.split == split for video in dataset.videos) for split in SPLITS
    }
    conditions, fits = _fits(
        plan, parts, heads=heads, seeds=seeds, device=device, official=official
    )
    experiment = experiment_name(dataset.name, target)
    identity = {
        "study": plan.study,
        "dataset": dataset.name,
        "target": target,
        "code_version": code_version(),
        "test_ids_digest": ids_digest(parts[plan.reference]["test"].ids),
    }
    with store.run(
        experiment,
        f"study {plan.study}",
        tags={**(tags or {}), **identity, "kind": "study"},
        about=f"What more data, fewer clips and so on do to {target}s of **{dataset.name}**. "
        "Each study is a run with its answer, figure and table, and holds its trainings.",
    ) as log:
        log.params({"heads": ",".join(heads), "seeds": seeds})
        log.json("sets", {name: source.fingerprint for name, source in sources.items()})
        found: list[Fit] = []
        for fit in fits:
            with store.run(
                experiment,
                f"{plan.study} {fit.condition} {fit.head} seed {fit.seed}",
                tags={**identity, "kind": "fit", "condition": fit.condition, "head": fit.head},
                parent_run_id=log.run_id,
            ) as nested:
                _record_fit(nested, fit)
            found.append(fit)
            if on_fit is not None:
                on_fit()
        report = summarise(
            plan,
            conditions,
            found,
            dataset=dataset.name,
            costs=costs,
            wanted_sizes=wanted_sizes,
            notes=notes,
        )
        report = replace(report, experiment=experiment, run_id=log.run_id)
        _record(log, report)
    return report


def _parts(plan: Plan, sources: Mapping[str, Source]) -> dict[str, Parts]:
    """The same videos of each condition, cut into their splits."""
    if plan.study == "resolution":
        # Only test videos were re-encoded; the head learns from the originals.
        own = sources[plan.reference]
        sources = {
            name: source if source is own else _with_training(source, own)
            for name, source in sources.items()
        }
    tables = {name: source.table for name, source in sources.items()}
    shared = set.intersection(*(set(table["video_id"]) for table in tables.values()))
    if not shared:
        raise InvalidInputError("no video is embedded under every condition")
    classes = sorted({*tables[plan.reference]["label"]})
    return {
        name: split_samples(
            table[table["video_id"].isin(shared)].sort_values("video_id"),
            classes,
            clips=sources[name].clips,
        )
        for name, table in tables.items()
    }


def _with_training(tests: Source, own: Source) -> Source:
    learnt_from = own.table[own.table["split"] != "test"]
    clips = None
    if tests.clips is not None and own.clips is not None:
        clips = {**own.clips, **tests.clips}
    return replace(tests, table=pd.concat([learnt_from, tests.table]), clips=clips)


def _fits(
    plan: Plan,
    parts: Mapping[str, Parts],
    *,
    heads: Sequence[str],
    seeds: int,
    device: str,
    official: Mapping[Split, int],
) -> tuple[Sequence[Condition], Iterator[Fit]]:
    own = parts[plan.reference]
    if plan.study == "data":
        return plan.conditions, fit_subsets(
            own, plan.conditions, heads=heads, seeds=seeds, device=device, official=official
        )
    if plan.study == "dims":
        looking = [head for head in heads if head_kind(head).takes_clips]
        if looking:
            raise InvalidInputError(
                f"study dims: {', '.join(looking)} looks at clips, and their means are projected"
            )
        made = projected_conditions(own, plan.values)
    else:
        made = [(condition, parts[condition.name]) for condition in plan.conditions]
    fit = fit_once if plan.study == "resolution" else fit_conditions
    return [condition for condition, _ in made], fit(
        made, heads=heads, seeds=seeds, device=device, official=official
    )


def _record_fit(log: RunLog, fit: Fit) -> None:
    log.params(
        {
            "condition": fit.condition,
            "head": fit.head,
            "seed": fit.seed,
            "train_videos": fit.train_videos,
            "dim": fit.dim,
        }
    )
    metrics = {"fit_s": fit.fit_s}
    for split, evaluation in fit.evaluations.items():
        metrics |= evaluation.metrics(split)
    log.metrics(metrics)
    log.table("predictions", fit.predictions)


def _record(log: RunLog, report: StudyReport) -> None:
    log.table("conditions", report.table())
    log.json("study", report.as_dict())
    log.figure(report.study, figures.draw(report))
    # One step a condition, in their order, so that the run's page draws them.
    log.history(
        [
            {
                "test_accuracy": row.test.value,
                "test_accuracy_low": row.test.low,
                "test_accuracy_high": row.test.high,
                "val_accuracy": row.val.value,
            }
            for row in report.of(report.head)
        ]
    )
    log.tags(
        {
            "head": report.head,
            "conclusion": str(report)[:4000],
            "mlflow.note.content": markdown(report),
        }
    )
