"""Artifacts that flow runs publish in Prefect, under stable keys."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from prefect import task
from prefect.artifacts import create_image_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from coinml.collection.attrition import attrition_key, attrition_markdown
from coinml.ledger import Ledger
from coinml.monitoring.run_scoring import ScoreReport
from coinml.registry.promotion import GateVerdict
from coinml.runtime.escaping import Markdown
from coinml.runtime.markdown import markdown_table
from coinml.runtime.settings import Settings
from coinml.tracking.mlflow_store import MlflowStore, home_store
from coinml.training.train_report import TrainReport
from tasks.artifact_keys import key_of
from tasks.links import log_artifacts
from tasks.summaries import AuditSummary, TrainSummary, champion_of

_SHOWN_WINDOWS, _SHOWN_FAILURES = 20, 20
_FOLDS = ("head", "accuracy", "macro-F1", "cut", "videos", "groups", "run")
_HEADS = ("head", "val", "test", "missing counted wrong", "macro-F1", "coverage", "version", "run")


@task(cache_policy=NO_CACHE)
def report_attrition(dataset: str) -> None:
    """Publish how many videos are downloaded, lost and pending, under `attrition-<dataset>`."""
    settings = Settings()
    with Ledger.of(settings) as ledger:
        status = ledger.status(dataset, rate_per_hour=settings.rate_per_hour)
        duplicates = sum(len(ids) - 1 for ids in ledger.duplicates(dataset))
        sources = ledger.sources(dataset)
    _publish(
        key=attrition_key(dataset),
        markdown=attrition_markdown(status, duplicates=duplicates, sources=sources),
        description=f"{status.downloaded:,} of {status.total:,} videos of {dataset} are downloaded",
    )


@task(cache_policy=NO_CACHE)
def report_audit(summary: AuditSummary) -> None:
    """Publish how much an audit found, under `audit-<dataset>-<target>`."""
    settings = Settings()
    store = home_store(settings)
    page = store.page_of(summary.run_id)
    run = Markdown(f"[{summary.run_id}]({page})") if page else summary.run_id
    rows = [[name, f"{count:,}", run] for name, count in summary.found.items()]
    notes = "".join(f"\n- {note}" for note in summary.notes)
    _publish(
        key=key_of("audit", summary.dataset, summary.target),
        markdown=f"# Audit of {summary.dataset} ({summary.target})\n\n"
        f"{markdown_table(('what', f'of {summary.videos:,} videos', 'run'), rows)}\n{notes}",
        description=str(summary),
    )


@task(cache_policy=NO_CACHE)
def report_scoring(report: ScoreReport) -> None:
    """Publish what was scored, the windows and the accuracy, under `score-<model>`."""
    windows = [
        (
            f"{one['start'] + 1:,} to {one['stop']:,}",
            one["compared_at"],
            *(f"{test['adjusted_p_value']:.2g}" for test in one["tests"].values()),
            ", ".join(one["drift"]) or "no",
        )
        for one in report.windows[-_SHOWN_WINDOWS:]
    ]
    text = f"# Scores of {report.model}\n\n{report}.\n"
    text += "".join(f"\n- {note}" for note in report.notes)
    if windows:
        tests = [f"p {name.replace('_', ' ')}" for name in report.windows[-1]["tests"]]
        text += f"\n\n{markdown_table(('files', 'compared', *tests, 'drift'), windows)}"
    if report.accuracies:
        rows = [(one.version or "all", one.videos, one.accuracy) for one in report.accuracies]
        text += f"\n\n{markdown_table(('version', 'labelled', 'accuracy'), rows)}"
    failed = (*report.scored.failed, *report.scored.unread)[:_SHOWN_FAILURES]
    if failed:
        text += f"\n\n{markdown_table(('file without an answer', 'why'), failed)}"
    create_markdown_artifact(
        key=key_of("score", report.model), markdown=text, description=str(report)
    )


@task(cache_policy=NO_CACHE)
def report_training(summary: TrainSummary) -> None:
    """Publish a table of the heads, the paired comparison of the first two, and their figures.

    The keys are `heads-<dataset>-<target>`, `comparison-<dataset>-<target>`, and for the figures
    `figure-<what>-<dataset>-<target>`.
    """
    if not summary.heads:
        return
    settings = Settings()
    store = home_store(settings)
    names = (summary.dataset, summary.target)
    rows = [_head_row(report, store.page_of(report.run_id)) for report in summary.heads]
    _publish(
        key=key_of("heads", *names),
        markdown=f"# Heads of {summary.dataset} ({summary.target})\n\n"
        f"{_cross_validated(summary, store)}"
        f"{markdown_table(_HEADS, rows)}\n\n"
        "In brackets 95 % intervals.",
        description=str(summary),
    )
    for crossed in summary.cross_validated:
        _publish_figure(store, crossed.run_id, "folds", (crossed.head, *names))
    for report in summary.heads:
        _publish_figure(store, report.run_id, "confusion", (report.head, *names))
    compared = summary.comparison
    if compared is not None:
        result = compared.result
        table = markdown_table(
            (
                result.things,
                f"only {compared.head_a} right",
                f"only {compared.head_b} right",
                "difference",
                "McNemar p",
            ),
            [
                (
                    result.n,
                    result.mcnemar.b,
                    result.mcnemar.c,
                    result.difference,
                    f"{result.mcnemar.p_value:.3g}",
                )
            ],
        )
        _publish(
            key=key_of("comparison", *names),
            markdown=f"# {compared.head_b} against {compared.head_a}\n\n{compared}.\n\n{table}",
            description=str(compared),
        )
        _publish_figure(store, compared.run_b, "comparison", names)


@task(cache_policy=NO_CACHE)
def report_verdicts(model: str, verdicts: Sequence[GateVerdict]) -> None:
    """Publish the gate's verdicts, under `champion-<model>`."""
    rows = [
        (verdict.version, "champion" if verdict.promoted else "refused", verdict.reason)
        for verdict in verdicts
    ]
    _publish(
        key=key_of("champion", model),
        markdown=f"# {model}: verdicts of the gate\n\n"
        f"{markdown_table(('version', 'verdict', 'why'), rows)}",
        description=champion_of(verdicts),
    )


def log_results(trained: TrainSummary | None, *, dataset: str) -> None:
    """Log the pages of what the subflows of this run have published."""
    keys = [attrition_key(dataset)]
    if trained is not None:
        names = (trained.dataset, trained.target)
        compared = [key_of("comparison", *names)] if trained.comparison else []
        keys += [key_of("heads", *names), *compared, key_of("champion", *names)]
    log_artifacts(*keys)


def _publish(*, key: str, markdown: str, description: str) -> None:
    create_markdown_artifact(key=key, markdown=markdown, description=description)
    log_artifacts(key)


def _cross_validated(summary: TrainSummary, store: MlflowStore) -> str:
    """A table of the cross-validations in Markdown; "" where there are none."""
    if not summary.cross_validated:
        return ""
    rows = [
        (
            one.head,
            str(one.accuracy),
            f"{one.metrics['cv_f1_macro']:.3f}",
            f"{one.folds} folds, {one.repeats} times",
            one.videos,
            one.groups,
            _run_link(store.page_of(one.run_id), one.run_id),
        )
        for one in summary.cross_validated
    ]
    table = markdown_table(_FOLDS, rows)
    return f"## Cross-validation\n\n{table}\n\n## Fixed split\n\n"


def _run_link(page: str | None, run_id: str) -> Markdown:
    return Markdown(f"[MLflow]({page})" if page else f"`{run_id}`")


def _head_row(report: TrainReport, page: str | None) -> tuple[object, ...]:
    numbers = report.metrics

    def shown(name: str) -> str:
        return f"{numbers[name]:.3f} [{numbers[f'{name}_low']:.3f}, {numbers[f'{name}_high']:.3f}]"

    return (
        f"{report.head} (reused)" if report.reused else report.head,
        shown("val_accuracy"),
        shown("test_accuracy"),
        shown("test_accuracy_missing_wrong"),
        shown("test_f1_macro"),
        f"{numbers['test_coverage']:.1%}",
        report.version,
        _run_link(page, report.run_id),
    )


def _publish_figure(store: MlflowStore, run_id: str, name: str, names: Sequence[str]) -> None:
    """Publish a run's figure embedded in an artifact, so that it shows without MLflow."""
    content = store.read_figure(run_id, name)
    if content is not None:
        key = key_of("figure", name, *names)
        create_image_artifact(
            key=key,
            image_url=f"data:image/png;base64,{base64.b64encode(content).decode()}",
            description=f"{name}: {' '.join(names)}",
        )
        log_artifacts(key)
