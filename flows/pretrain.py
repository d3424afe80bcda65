"""Flow `pretrain`: adapt an encoder to the collected training videos, without labels."""

from __future__ import annotations

from prefect import flow

from coinml.pretraining.options import PretrainOptions
from coinml.pretraining.pretrain_report import PretrainReport
from coinml.pretraining.training_run import experiment_name
from coinml.runtime import progress
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from tasks.alerts import announcing_failures
from tasks.outcomes import completed
from tasks.pretraining import pretrain_encoder
from tasks.training import check_tracking
from tasks.watching import progress_shown, rename_run


@announcing_failures
@flow(name="pretrain", flow_run_name="pretrain {selection.title}")
def pretrain(
    selection: Selection, pretraining: PretrainOptions = PretrainOptions()
) -> PretrainReport:
    """Pre-train a VideoMAE on the collected training videos; val and test are not opened.

    A run continues from the newest checkpoint. The last one is an encoder, which `embed` takes.

    Args:
        selection: Which videos.
        pretraining: From which encoder, with which masks, for how long.

    Raises:
        InvalidInputError: No training video is collected, or the folder has the checkpoints of
            another training.
        LocalError: This machine is at fault, or runs cannot be recorded in MLflow.
    """
    dataset = selection.load(Settings().data_dir)
    check_tracking(experiment_name(dataset.name))
    with progress_shown(dataset.name), progress.stage("pretrain", pretraining.steps):
        report = pretrain_encoder(selection, pretraining)
    rename_run(f"pretrain {selection.title}", f"pretrain {selection.title}: {report.steps} steps")
    return completed(report, message=str(report))
