"""What is told to whoever waits for it: the deployments that are triggered by events."""

from __future__ import annotations

from contextlib import AbstractContextManager

from prefect import tags
from prefect.context import FlowRunContext
from prefect.events import emit_event

from coinml.embedding_sets.options import SetOptions
from coinml.selection import Selection
from tasks.summaries import CollectReport, EmbedSummary

TAG = "coinml"
"""On every run of ours, and what the automations of `coinml deploy` look for."""

COLLECTED, EMBEDDED = "coinml.collected", "coinml.embedded"


def ours() -> AbstractContextManager[object]:
    """Within it, flows and tasks that begin bear our tag: one within another has none else."""
    return tags(TAG)


def announce_collected(selection: Selection, report: CollectReport, source: str | None) -> bool:
    """Tell that videos came; not from within another flow, which goes on with them itself.

    Returns:
        Whether it was told: never of nothing.
    """
    payload = {
        "new": report.fetched,
        "selection": selection.model_dump(mode="json"),
        "source": source,
    }
    return _announce(COLLECTED, report.dataset, report.fetched, payload)


def announce_embedded(selection: Selection, summary: EmbedSummary, options: SetOptions) -> bool:
    """Tell that a set has grown; not from within another flow, which goes on with it itself.

    Args:
        selection: Whose videos.
        summary: What was embedded.
        options: The set, as it was asked for.

    Returns:
        Whether it was told: never of nothing.
    """
    payload = {
        "new": summary.embedded,
        "selection": selection.model_dump(mode="json"),
        "set_options": options.model_dump(mode="json"),
        "fingerprint": summary.fingerprint,
        # Nothing but steps is learnt on segments.
        "target": "step" if options.extent == "segments" else "task",
    }
    return _announce(EMBEDDED, summary.dataset, summary.embedded, payload)


def _announce(event: str, dataset: str, new: int, payload: dict[str, object]) -> bool:
    if not new or _is_within_another():
        return False
    resource = {
        "prefect.resource.id": f"coinml.dataset.{dataset}",
        "prefect.resource.name": dataset,
    }
    return emit_event(event, resource=resource, payload=payload) is not None


def _is_within_another() -> bool:
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return run is None or run.parent_task_run_id is not None
