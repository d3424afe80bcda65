"""MLflow: experiments, runs and what is logged to them.

With `registry`, `serving` and `serving_model` the only importer of mlflow. The store and the
place of the artifacts are always passed, since MLflow's own defaults depend on the working
folder and are then stored as absolute paths.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Copying a figure into a folder is nothing to watch.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# A model's requirements are ours, not those of a project in the folder we were started from.
os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")

import mlflow
from filelock import FileLock
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from coinml.errors import InvalidInputError, TransientError
from coinml.owner import is_dead, new_owner

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

OWNER = "coinml.process"
"""Tag of a run: the process that writes it."""

_BATCH = 1000
"""Metrics a call; a call costs ten times what a metric in it does."""

_BETWEEN_BATCHES_S = 5.0
"""Metrics of epochs are written so often, for whoever watches a long training."""

_MISSING = {ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE)}
"""MLflow calls an unknown alias and a malformed id an invalid parameter."""

_MAKING = threading.Lock()
_made: set[Path] = set()
"""Databases that this process has seen whole."""

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.ERROR)


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Where runs are recorded.

    Attributes:
        uri: MLflow's tracking URI.
        artifact_root: Folder for the artifacts of a local store; a server has its own.
    """

    uri: str
    artifact_root: Path

    def client(self) -> MlflowClient:
        """A client of this store, which all of this process then uses."""
        if mlflow.get_tracking_uri() != self.uri:
            mlflow.set_tracking_uri(self.uri)
            mlflow.set_registry_uri(self.uri)
        if self.uri.startswith("sqlite:///"):
            _make_database(Path(self.uri.removeprefix("sqlite:///")))
        return mlflow.MlflowClient(self.uri)

    def experiment(self, name: str, *, description: str = "") -> str:
        """The id of an experiment, which is made if it is not there."""
        client = self.client()
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        local = self.uri.startswith("sqlite")
        location = (self.artifact_root / name).resolve().as_uri() if local else None
        try:
            return str(
                client.create_experiment(
                    name,
                    artifact_location=location,
                    tags={"mlflow.note.content": description} if description else None,
                )
            )
        except MlflowException:
            # Another process made it at this moment.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

    @contextmanager
    def run(
        self,
        experiment: str,
        name: str,
        *,
        tags: Mapping[str, str],
        parent_run_id: str | None = None,
        run_id: str | None = None,
    ) -> Iterator[RunLog]:
        """Record a run; it ends FINISHED, FAILED with an error, KILLED with an interrupt.

        Args:
            experiment: Its name; it is made if it is not there.
            name: The run's name, for people.
            tags: What it can be found by.
            parent_run_id: The run of the same experiment that this one is nested in.
            run_id: Go on with this run instead of beginning one.
        """
        client = self.client()
        self.end_abandoned(experiment)
        nested = {} if parent_run_id is None else {MLFLOW_PARENT_RUN_ID: parent_run_id}
        if run_id is None:
            run = client.create_run(
                self.experiment(experiment),
                run_name=name,
                tags={**tags, **nested, OWNER: new_owner()},
            )
            run_id = str(run.info.run_id)
        else:
            client.set_tag(run_id, OWNER, new_owner())
            client.update_run(run_id, status="RUNNING")
        try:
            yield RunLog(client, run_id)
        except Exception:
            client.set_terminated(run_id, "FAILED")
            raise
        except BaseException:
            client.set_terminated(run_id, "KILLED")
            raise
        client.set_terminated(run_id, "FINISHED")

    def end_abandoned(self, experiment: str) -> list[str]:
        """End, as KILLED, the runs of an experiment whose process died on this host.

        A process that is killed cannot say so; without this its runs would go on for ever.

        Returns:
            The ids of the runs that were ended.
        """
        client = self.client()
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return []
        running = client.search_runs([found.experiment_id], "attributes.status = 'RUNNING'")
        dead = [str(run.info.run_id) for run in running if is_dead(run.data.tags.get(OWNER, ""))]
        for run_id in dead:
            logger.info("run %s was left by a process that is gone: it ends as KILLED", run_id)
            client.set_terminated(run_id, "KILLED")
        return dead

    def find_runs(
        self, experiment: str, tags: Mapping[str, str], *, finished: bool = True
    ) -> list[str]:
        """Ids of the runs of an experiment that bear these tags, the latest first.

        Args:
            experiment: Its name.
            tags: What the runs bear, all of it.
            finished: Leave out those that go on, failed or were interrupted.
        """
        client = self.client()
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return []
        conditions = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
        if finished:
            conditions.append("attributes.status = 'FINISHED'")
        ids: list[str] = []
        page: str | None = None
        while page is None or page:
            runs = client.search_runs(
                [found.experiment_id],
                " and ".join(conditions),
                order_by=["attributes.start_time DESC"],
                page_token=page,
            )
            ids += [str(run.info.run_id) for run in runs]
            page = runs.token or ""
        return ids

    def read_run(self, run_id: str) -> Run:
        """A run with its parameters, tags and last metrics.

        Raises:
            InvalidInputError: There is none with this id.
        """
        try:
            return self.client().get_run(run_id)
        except MlflowException as err:
            if not is_missing(err):
                raise TransientError(f"{self.uri}: {err.message}") from err
            raise InvalidInputError(f"no run {run_id!r} at {self.uri}") from err

    def read_history(self, run_id: str) -> pd.DataFrame:
        """Metrics that a run logged at more than one step: `step` and a column for each.

        Raises:
            InvalidInputError: There is no run with this id.
        """
        import pandas as pd

        client = self.client()
        columns = {}
        for name in sorted(self.read_run(run_id).data.metrics):
            history = client.get_metric_history(run_id, name)
            if len(history) > 2:
                columns[name] = pd.Series({one.step: one.value for one in history})
        table = pd.DataFrame(columns).sort_index()
        return table.rename_axis("step").reset_index()

    def read_table(self, run_id: str, name: str) -> pd.DataFrame:
        """A table that `RunLog.table` logged.

        Raises:
            InvalidInputError: The run has no such table.
        """
        import tempfile

        import pandas as pd

        with tempfile.TemporaryDirectory() as folder:
            try:
                path = self.client().download_artifacts(run_id, f"tables/{name}.parquet", folder)
            except (MlflowException, OSError) as err:
                raise InvalidInputError(f"run {run_id!r} has no table {name!r}") from err
            return pd.read_parquet(path)


class RunLog:
    """What a run writes down."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self.run_id = run_id
        self.last_step = 0

    def params(self, values: Mapping[str, object]) -> None:
        """Log parameters, as text."""
        params = [Param(key, str(value)) for key, value in values.items()]
        self._client.log_batch(self.run_id, params=params)

    def tags(self, values: Mapping[str, object]) -> None:
        """Set tags, as text."""
        tags = [RunTag(key, str(value)) for key, value in values.items()]
        self._client.log_batch(self.run_id, tags=tags)

    def metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Log one number each."""
        self.history([values], first_step=step)

    def history(self, steps: Sequence[Mapping[str, float]], *, first_step: int = 1) -> None:
        """Log one mapping of metrics a step, in batches."""
        now_ms = int(time.time() * 1000)
        metrics = [
            Metric(key, float(value), now_ms, step)
            for step, values in enumerate(steps, start=first_step)
            for key, value in values.items()
        ]
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(self.run_id, metrics=metrics[start : start + _BATCH])
        self.last_step = max(self.last_step, first_step + len(steps) - 1)

    @contextmanager
    def epochs(self) -> Iterator[Callable[[Mapping[str, float]], None]]:
        """Within it, the value logs one epoch's metrics each time it is called.

        They are written some seconds apart, all that have come since then in one batch: a
        call costs more than an epoch of a small network. What is left is written at the end,
        also when the training failed.
        """
        waiting: list[Mapping[str, float]] = []
        written = 0
        last_s = time.monotonic()

        def write() -> None:
            nonlocal written, last_s
            if waiting:
                self.history(waiting, first_step=written + 1)
            written += len(waiting)
            waiting.clear()
            last_s = time.monotonic()

        def add(values: Mapping[str, float]) -> None:
            waiting.append(values)
            if time.monotonic() - last_s >= _BETWEEN_BATCHES_S:
                write()

        try:
            yield add
        finally:
            write()

    def figure(self, name: str, figure: Figure) -> None:
        """Log a figure as `figures/<name>.png`."""
        self._client.log_figure(self.run_id, figure, f"figures/{name}.png")

    def table(self, name: str, table: pd.DataFrame) -> None:
        """Log a table as `tables/<name>.parquet`, and as CSV for people."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            table.to_parquet(Path(folder) / f"{name}.parquet", index=False)
            table.to_csv(Path(folder) / f"{name}.csv", index=False)
            self._client.log_artifacts(self.run_id, folder, "tables")

    def json(self, name: str, content: Any) -> None:
        """Log a document as `<name>.json`."""
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
        """Log a table as the run's input, known by its digest."""
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.pandas_dataset import from_pandas
        from mlflow.entities import DatasetInput, InputTag

        # Not a URL: a set may lie in a folder of this machine, which MLflow only warns about.
        data = from_pandas(
            table,
            source=CodeDatasetSource(tags=dict(source)),
            name=name,
            targets="label",
            digest=digest,
        )
        entry = DatasetInput(data._to_mlflow_entity(), [InputTag("mlflow.data.context", context)])
        self._client.log_inputs(self.run_id, [entry])


def _make_database(path: Path) -> None:
    """Let one thread of one process make the tables; MLflow lets all of them try, and fail."""
    with _MAKING:
        if path in _made and path.is_file():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            mlflow.MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)
        _made.add(path)


def is_missing(err: MlflowException) -> bool:
    """Whether MLflow says that there is no such thing, and not that it could not look."""
    return err.error_code in _MISSING


def code_version() -> str:
    """The version of coinml that runs here."""
    return importlib.metadata.version("coinml")
