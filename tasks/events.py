"""The events that trigger deployments."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from prefect import tags
from prefect.context import FlowRunContext
from prefect.events import emit_event

from coinml.data.targets import target_of
from coinml.embedding_sets.options import SetOptions
from coinml.monitoring.run_scoring import ScoreReport
from coinml.selection import Selection
from tasks.lost_events import remember
from tasks.summaries import CollectReport, EmbedSummary

TAG = "coinml"
"""The tag of every coinml run; the automations of `coinml deploy` filter by it."""

COLLECTED, EMBEDDED, SCORED = "coinml.collected", "coinml.embedded", "coinml.scored"
STARTS = {COLLECTED: "embed/on-new", EMBEDDED: "train/on-growth"}
"""The deployment that each of them starts."""


def tagged() -> AbstractContextManager[object]:
    """Give coinml's tag to all flows started in the block: subflows do not inherit it."""
    return tags(TAG)


def announce_collected(
    selection: Selection, report: CollectReport, source: str | Sequence[str] | None
) -> bool:
    """Emit `coinml.collected`, unless in a subflow or without new videos.

    A parent flow processes the new videos itself.

    Args:
        selection: The videos that were to be downloaded.
        report: What was downloaded.
        source: The sources that were asked; None: the default.

    Returns:
        Whether the event was emitted.
    """
    payload = {
        "new": report.fetched,
        "selection": selection.model_dump(mode="json"),
        "source": source,
    }
    return _announce(COLLECTED, report.dataset, report.fetched, payload)


def announce_embedded(selection: Selection, summary: EmbedSummary, options: SetOptions) -> bool:
    """Emit `coinml.embedded`, unless in a subflow or without new vectors.

    A parent flow processes the grown set itself.

    Args:
        selection: The videos that were embedded.
        summary: What was embedded.
        options: The set's options, as the flow was given them.

    Returns:
        Whether the event was emitted.
    """
    payload = {
        "new": summary.embedded,
        "selection": selection.model_dump(mode="json"),
        "set_options": options.model_dump(mode="json"),
        "fingerprint": summary.fingerprint,
        "target": target_of(None, options.extent),
    }
    return _announce(EMBEDDED, summary.dataset, summary.embedded, payload)


def announce_scored(selection: Selection, report: ScoreReport) -> bool:
    """Emit `coinml.scored`, unless in a subflow or without new answers.

    Args:
        selection: Whose champion answered.
        report: What was classified.

    Returns:
        Whether the event was emitted.
    """
    done = report.scored
    payload = {
        "new": done.scored,
        "failed": len(done.failed),
        "model": report.model,
        "version": report.version,
        "folder": report.source,
        "drift": list(report.drift),
    }
    return _announce(SCORED, selection.title, done.scored, payload)


def _announce(event: str, dataset: str, new: int, payload: dict[str, object]) -> bool:
    if not new or is_subflow():
        return False
    resource = {
        "prefect.resource.id": f"coinml.dataset.{dataset}",
        "prefect.resource.name": dataset,
    }
    if event in STARTS:
        remember(event, resource, payload, STARTS[event])
    return emit_event(event, resource=resource, payload=payload) is not None


def is_subflow() -> bool:
    """Whether the code runs in a flow that another flow has called, or in none."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return run is None or run.parent_task_run_id is not None
