"""Writing to one MLflow run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from coinml.runtime.escaping import write_csv
from coinml.tracking.epochs import EpochWriter, Numbers
from coinml.tracking.metric_names import EPOCH, logged_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

_BATCH = 1000
"""Metrics per call of MLflow: a call costs about as much as ten metrics in it."""

_BETWEEN_BATCHES_S = 5.0
"""Seconds between two writes of epoch metrics, so that a long training can be watched."""

_NOTE = "mlflow.note.content"
"""The tag that MLflow shows as the description of a run."""


class RunLog:
    """Writes metrics, tags, tables and figures of one run; see `MlflowStore.run`."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self.run_id = run_id

    def params(self, values: Mapping[str, object]) -> None:
        """Log parameters, as text."""
        params = [Param(key, str(value)) for key, value in values.items()]
        self._client.log_batch(self.run_id, params=params)

    def tags(self, values: Mapping[str, object]) -> None:
        """Set tags, as text."""
        tags = [RunTag(key, str(value)) for key, value in values.items()]
        self._client.log_batch(self.run_id, tags=tags)

    def metrics(self, values: Mapping[str, float]) -> None:
        """Log final metrics of the run, at step 0 alone: MLflow draws those as bars."""
        self._log([{logged_name(key): value for key, value in values.items()}], 0)

    def history(
        self,
        steps: Sequence[Mapping[str, float]],
        *,
        group: str = EPOCH,
        first_step: int = 1,
        every: int = 1,
    ) -> None:
        """Log a sequence of metrics, one mapping per step, in batches.

        Args:
            steps: The metrics by coinml's names.
            group: `metric_names.EPOCH`, `CONDITION` or `STEP`: what a step is.
            first_step: The first one's number.
            every: Steps from one mapping to the next.
        """
        self._log(
            [{f"{group}/{key}": value for key, value in values.items()} for values in steps],
            first_step,
            every,
        )

    def rename(self, name: str) -> None:
        """Set the run's name."""
        self._client.update_run(self.run_id, name=name)

    def _log(self, steps: Sequence[Mapping[str, float]], first_step: int, every: int = 1) -> None:
        now_ms = int(time.time() * 1000)
        metrics = [
            Metric(key, float(value), now_ms, first_step + number * every)
            for number, values in enumerate(steps)
            for key, value in values.items()
        ]
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(self.run_id, metrics=metrics[start : start + _BATCH])

    @contextmanager
    def epochs(
        self, *, group: str = EPOCH, every: int = 1, first: int = 1
    ) -> Iterator[Callable[[Numbers], None]]:
        """Yields a function that logs the metrics of one epoch.

        Metrics are written every few seconds by another thread, so that training continues while
        MLflow does not answer. The rest is written at the end, even if training failed.

        Args:
            group: As in `history`.
            every: Steps of the group from one call to the next.
            first: Number of the first call; it is logged at step `first * every`.
        """

        def write(steps: Sequence[Numbers], number: int) -> None:
            self.history(steps, group=group, first_step=number * every, every=every)

        writer = EpochWriter(write, every_s=_BETWEEN_BATCHES_S, first=first)
        try:
            yield writer.add
        except BaseException:
            # The training's own error matters more than a second one from MLflow.
            with suppress(MlflowException):
                writer.close()
            raise
        writer.close()

    def complete_history(self, steps: Sequence[Numbers]) -> None:
        """Log those of `steps` that a run started by another process does not have yet."""
        if steps:
            name = next(iter(steps[-1]))
            logged = self._client.get_metric_history(self.run_id, f"{EPOCH}/{name}")
            done = min(max((one.step for one in logged), default=0), len(steps))
            self.history(steps[done:], first_step=done + 1)

    def describe(self, text: str) -> None:
        """Set the description (Markdown) that MLflow shows on the run's page."""
        self.tags({_NOTE: text})

    def figure(self, name: str, figure: Figure) -> None:
        """Log a figure as `figures/<name>.png`."""
        self._client.log_figure(self.run_id, figure, f"figures/{name}.png")

    def table(self, name: str, table: pd.DataFrame, *, csv: bool = True) -> None:
        """Log a table as `tables/<name>.parquet` and, unless told not to, `tables/<name>.csv`."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            table.to_parquet(Path(folder) / f"{name}.parquet", index=False)
            if csv:
                write_csv(table, Path(folder) / f"{name}.csv")
            self._client.log_artifacts(self.run_id, folder, "tables")

    def json(self, name: str, content: Any) -> None:
        """Log a JSON-serialisable object as `<name>.json`."""
        self._client.log_dict(self.run_id, content, f"{name}.json")

    def dataset(
        self,
        table: pd.DataFrame,
        *,
        name: str,
        source: Mapping[str, str],
        digest: str,
        context: str,
    ) -> None:
        """Log a table as an input dataset of the run, with its digest."""
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.pandas_dataset import from_pandas
        from mlflow.entities import DatasetInput, InputTag

        # Not a URL source: MLflow warns about sources that are local folders.
        data = from_pandas(
            table,
            source=CodeDatasetSource(tags=dict(source)),
            name=name,
            targets="label",
            digest=digest,
        )
        entry = DatasetInput(data._to_mlflow_entity(), [InputTag("mlflow.data.context", context)])
        self._client.log_inputs(self.run_id, [entry])
