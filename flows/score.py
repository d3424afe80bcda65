"""Flow `score`: classify what is new in a folder, and compare it with the training set."""

from __future__ import annotations

from prefect import flow

from coinml.data.records import Target
from coinml.monitoring.options import ScoreOptions
from coinml.monitoring.run_scoring import ScoreReport
from coinml.selection import Selection
from coinml.training.train_head import model_name
from tasks.alerts import announce_drift, announcing_failures
from tasks.events import announce_scored
from tasks.outcomes import completed
from tasks.reporting import report_scoring
from tasks.scoring import score_new
from tasks.watching import progress_shown, rename_run


@announcing_failures
@flow(name="score", flow_run_name="score {selection.title}")
def score(
    selection: Selection, scoring: ScoreOptions = ScoreOptions(), target: Target = "task"
) -> ScoreReport | None:
    """Classify the files that are new with the champion of a dataset.

    Files that cannot be classified do not fail the flow: their errors are kept with the answers.
    Without a champion, nothing is done.

    Args:
        selection: Whose champion: that of the dataset.
        scoring: Which files, and how they are compared with the training set.
        target: Predicted classes: `task`, `domain` or `step`.

    Raises:
        LocalError: The folder cannot be read, or another run is at work.
    """
    model = model_name(selection.title, target)
    with progress_shown(selection.title):
        report = score_new(model, selection.title, scoring)
    if report is None:
        return completed(report, message=f"{model} has no champion yet: nothing is classified")
    report_scoring(report)
    announce_scored(selection, report)
    announce_drift(report)
    was = f"score {selection.title}"
    rename_run(was, f"{was}: {report.scored.scored} new{', drift' * bool(report.drift)}")
    return completed(report, message=str(report))
