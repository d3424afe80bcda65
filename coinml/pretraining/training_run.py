"""The MLflow run of a pre-training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from coinml.data.records import Dataset
from coinml.pretraining.checkpoints import TrainingRecord
from coinml.pretraining.options import PretrainOptions
from coinml.tracking.metric_names import STEP

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from coinml.tracking.mlflow_store import MlflowStore
    from coinml.tracking.run_log import RunLog

WINDOW = 10
"""Steps of which a run has the mean: a value of each step would make MLflow slow."""


class TrainingLog:
    """Takes what is measured; without a run, it keeps nothing.

    Args:
        run: The run; None if none is recorded.
        add: Logs the values of a window to it.
    """

    def __init__(
        self, run: RunLog | None = None, add: Callable[[Mapping[str, float]], None] | None = None
    ) -> None:
        self._run = run
        self._add = add

    def window(self, values: Mapping[str, float], step: int) -> None:
        """Log the values of the `WINDOW` steps up to this one, or of the last, fewer steps."""
        if self._add is not None and step % WINDOW == 0:
            self._add(values)
        elif self._run is not None:
            self._run.history([values], group=STEP, first_step=step)

    def pictures(self, step: int, rebuilt: NDArray[np.uint8] | None) -> None:
        """Log input, masked and rebuilt frames: uint8 (clips, 3, T, height, width, 3)."""
        if self._run is not None and rebuilt is not None:
            from coinml.figures.reconstructions import reconstructions

            self._run.figure(f"reconstructions-{step:06d}", reconstructions(rebuilt, step=step))


def experiment_name(dataset: str) -> str:
    """The experiment of a dataset's pre-trainings."""
    return f"{dataset}-pretraining"


@contextmanager
def recorded(
    store: MlflowStore | None, dataset: Dataset, record: TrainingRecord, options: PretrainOptions
) -> Iterator[TrainingLog]:
    """The log of a run that is begun or continued; the record gets its id.

    Raises:
        TransientError: MLflow does not answer.
    """
    if store is None:
        yield TrainingLog()
        return
    known = record.run_id if record.run_id and store.has_run(record.run_id) else None
    with store.run(
        experiment_name(dataset.name),
        f"{options.masking} {options.mask_ratio:g}",
        tags={"dataset": dataset.name, "ledger_digest": record.ledger_digest},
        about="Encoders that are pre-trained without labels, on the training videos alone.",
        run_id=known,
    ) as log:
        if known is None:
            record.run_id = log.run_id
            log.params(_params(record))
        first = record.step // WINDOW + 1
        with log.epochs(group=STEP, every=WINDOW, first=first) as add:
            yield TrainingLog(log, add)


def finish(store: MlflowStore | None, record: TrainingRecord) -> None:
    """Mark the run of a complete training as finished, if its process was killed before it did.

    Raises:
        TransientError: MLflow does not answer.
    """
    if store is not None and record.run_id and store.has_run(record.run_id):
        store.finish(record.run_id)


def _params(record: TrainingRecord) -> dict[str, Any]:
    return {"steps": record.steps, **record.recipe}
