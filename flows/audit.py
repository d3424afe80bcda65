"""Flow `audit`: doubtful labels, outliers, near-duplicates and stills of an embedded dataset."""

from __future__ import annotations

from prefect import flow

from coinml.data.records import Target
from coinml.embedding_sets.options import SetOptions
from coinml.runtime import progress
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml.training.train_head import model_name
from tasks.alerts import announcing_failures
from tasks.audit import audit_embedded
from tasks.outcomes import completed
from tasks.reporting import report_audit
from tasks.summaries import AuditSummary
from tasks.training import check_tracking
from tasks.watching import progress_shown, rename_run


@announcing_failures
@flow(name="audit", flow_run_name="audit {selection.title}")
def audit(
    selection: Selection,
    set_options: SetOptions = SetOptions(),
    target: Target = "task",
    seed: int = 0,
) -> AuditSummary:
    """Look for videos whose label or content is doubtful; it changes no label.

    Args:
        selection: Which videos.
        set_options: How they became vectors; identifies the embedding set.
        target: Whose labels: `task`, `domain` or `step`.
        seed: Seed of the folds.

    Raises:
        InvalidInputError: There is no such set, or none of the videos is in it.
        LocalError: Runs cannot be recorded in MLflow.
    """
    dataset = selection.load(Settings().data_dir)
    made = set_options.for_target(target).resolved(mini=selection.is_mini)
    check_tracking(model_name(dataset.name, target))
    with progress_shown(dataset.name), progress.stage("look"):
        summary = audit_embedded(selection, made, target, seed)
    report_audit(summary)
    rename_run(f"audit {selection.title}", f"audit {selection.title}: {summary.suspects} suspects")
    return completed(summary, message=str(summary))
