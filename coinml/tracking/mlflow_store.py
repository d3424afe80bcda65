"""MLflow: experiments, runs and what is logged to them.

With `registry`, `serving`, `serving_model` and `predicting` the only importer of mlflow. The store
and the place of the artifacts are always passed, since MLflow's own defaults depend on the working
folder and are then stored as absolute paths.

A server that is away for a while is waited for: MLflow's client tries a call for some four minutes
(`MLFLOW_HTTP_REQUEST_MAX_RETRIES` and its kin) before it gives up.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Copying a figure into a folder is nothing to watch.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# It would stand on stdout, where nothing but results belongs, with the password of the address.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# A model's requirements are ours, not those of a project in the folder we were started from.
os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")

import mlflow
import requests
from filelock import FileLock
from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
    ErrorCode,
)
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from coinml.errors import InvalidInputError, TransientError
from coinml.runtime.addresses import without_password, without_user
from coinml.runtime.process_identity import is_dead, new_owner
from coinml.tracking.run_log import RunLog

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

__all__ = ["MlflowStore", "RunLog", "answering", "code_version", "is_missing"]

OWNER = "coinml.process"
"""Tag of a run: the process that writes it."""

_MISSING = {ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE)}
"""MLflow calls an unknown alias and a malformed id an invalid parameter."""

_LOCKED = ErrorCode.Name(TEMPORARILY_UNAVAILABLE)
_NO_ANSWER = re.compile("API request to (?!endpoint)")
"""How MLflow's client begins when it has given up; the error's code is that of any other."""

_NOTE = "mlflow.note.content"

_MAKING = threading.Lock()
_made: set[Path] = set()
"""Databases that this process has seen whole."""

_untold: dict[str, str] = {}
"""How runs of this process ended while nobody was there to be told."""

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.ERROR)


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MlflowStore:
    """Where runs are recorded.

    Attributes:
        uri: MLflow's tracking URI.
        artifact_root: Folder for the artifacts of a local store; a server has its own.
    """

    uri: str
    artifact_root: Path

    @property
    def shown(self) -> str:
        """The URI as it may be written down: without the password, if it has one."""
        return without_password(self.uri)

    def client(self) -> MlflowClient:
        """A client of this store, which all of this process then uses."""
        address = self._address()
        if mlflow.get_tracking_uri() != address:
            mlflow.set_tracking_uri(address)
            mlflow.set_registry_uri(address)
        if self.uri.startswith("sqlite:///"):
            _make_database(Path(self.uri.removeprefix("sqlite:///")))
        return mlflow.MlflowClient(address)

    def _address(self) -> str:
        """What MLflow is given: user and password apart, or they would be in all its messages."""
        parts = urlsplit(self.uri)
        if parts.scheme not in ("http", "https") or parts.username is None:
            return self.uri
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
        return without_user(self.uri)

    def experiment(self, name: str, *, description: str = "") -> str:
        """The id of an experiment, which is made if it is not there; who described it, did."""
        client = self.client()
        found = client.get_experiment_by_name(name)
        if found is None:
            local = self.uri.startswith("sqlite")
            location = (self.artifact_root / name).resolve().as_uri() if local else None
            try:
                note = {_NOTE: description} if description else None
                client.create_experiment(name, artifact_location=location, tags=note)
            except MlflowException:
                # Another process made it at this moment.
                if client.get_experiment_by_name(name) is None:
                    raise
            found = client.get_experiment_by_name(name)
            assert found is not None  # It was made just now, by whom ever.
        experiment_id = str(found.experiment_id)
        if description and _NOTE not in found.tags:
            # Two heads that are trained at once both look, and the second to write fails.
            with suppress(MlflowException):
                client.set_experiment_tag(experiment_id, _NOTE, description)
        return experiment_id

    @contextmanager
    def run(
        self,
        experiment: str,
        name: str,
        *,
        tags: Mapping[str, str],
        about: str = "",
        parent_run_id: str | None = None,
        run_id: str | None = None,
    ) -> Iterator[RunLog]:
        """Record a run; it ends FINISHED, FAILED with an error, KILLED with an interrupt.

        Args:
            experiment: Its name; it is made if it is not there.
            name: The run's name, for people.
            tags: What it can be found by.
            about: The experiment's description (Markdown), where it has none.
            parent_run_id: The run of the same experiment that this one is nested in.
            run_id: Go on with this run instead of beginning one.
        """
        client = self.client()
        self.end_abandoned(experiment)
        nested = {} if parent_run_id is None else {MLFLOW_PARENT_RUN_ID: parent_run_id}
        if run_id is None:
            run = client.create_run(
                self.experiment(experiment, description=about),
                run_name=name,
                tags={**tags, **nested, OWNER: new_owner()},
            )
            run_id = str(run.info.run_id)
        else:
            client.set_tag(run_id, OWNER, new_owner())
            client.update_run(run_id, status="RUNNING")
        try:
            yield RunLog(client, run_id)
        # Whatever went wrong, the run must not stay RUNNING; it is raised again as it was.
        except Exception as err:
            self._end(run_id, "FAILED", away=_is_away(err))
            raise
        except BaseException:
            self._end(run_id, "KILLED")
            raise
        client.set_terminated(run_id, "FINISHED")

    def _end(self, run_id: str, status: str, *, away: bool = False) -> None:
        """Tell how a run ended; where MLflow is away, whoever begins the next run tells it."""
        try:
            if away:
                # Minutes were spent in asking for it already.
                _untold[run_id] = status
            else:
                self.client().set_terminated(run_id, status)
        except MlflowException:
            _untold[run_id] = status

    def finish(self, run_id: str) -> None:
        """Let a run end FINISHED, whose work is whole though its process could not say so."""
        client = self.client()
        if client.get_run(run_id).info.status != "FINISHED":
            client.set_terminated(run_id, "FINISHED")
        _untold.pop(run_id, None)

    def end_abandoned(self, experiment: str) -> list[str]:
        """End, as KILLED, the runs of an experiment whose process died on this host.

        A process that is killed cannot say so; without this its runs would go on for ever. Those
        of this process whose end could not be told are ended as they did.

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
        for run in running:
            if status := _untold.pop(str(run.info.run_id), None):
                client.set_terminated(run.info.run_id, status)
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
                raise TransientError(f"{self.shown}: {self.masked(err)}") from err
            raise InvalidInputError(f"no run {run_id!r} at {self.shown}") from err

    def has_run(self, run_id: str) -> bool:
        """Whether there is such a run, and nobody has deleted it."""
        try:
            run = self.client().get_run(run_id)
        except MlflowException as err:
            if not is_missing(err):
                raise
            return False
        return bool(run.info.lifecycle_stage == LifecycleStage.ACTIVE)

    def page_of(self, run_id: str) -> str | None:
        """Where a browser shows a run; None where the store is no server."""
        if not self.uri.startswith(("http://", "https://")):
            return None
        experiment = self.read_run(run_id).info.experiment_id
        return f"{without_user(self.uri)}/#/experiments/{experiment}/runs/{run_id}"

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
            path = self._download(run_id, f"tables/{name}.parquet", folder)
            if path is None:
                raise InvalidInputError(f"run {run_id!r} has no table {name!r}")
            return pd.read_parquet(path)

    def read_figure(self, run_id: str, name: str) -> bytes | None:
        """A figure that `RunLog.figure` logged, as PNG; None where the run has none such."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = self._download(run_id, f"figures/{name}.png", folder)
            return None if path is None else Path(path).read_bytes()

    def _download(self, run_id: str, path: str, folder: str) -> str | None:
        """Fetch an artifact into a folder; None where the run has none such.

        Raises:
            TransientError: It could not be looked for.
        """
        client = self.client()
        try:
            return str(client.download_artifacts(run_id, path, folder))
        except (MlflowException, OSError) as err:
            # What lacks, and a server that is away, both raise whatever the artifacts' place does.
            try:
                listed = client.list_artifacts(run_id, path.rpartition("/")[0] or None)
            except (MlflowException, OSError) as again:
                if isinstance(again, MlflowException) and is_missing(again):
                    return None
                raise TransientError(f"{self.shown}: {self.masked(again)}") from again
            if any(one.path == path for one in listed):
                raise TransientError(f"{self.shown}: {self.masked(err)}") from err
            return None

    def masked(self, err: BaseException) -> str:
        """What an error says, without the password that the URI may hold."""
        return str(err).replace(self.uri, self.shown)


def _make_database(path: Path) -> None:
    """Let one thread of one process make the tables; MLflow lets all of them try, and fail."""
    with _MAKING:
        if path in _made and path.is_file():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            mlflow.MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)
        _made.add(path)


@contextmanager
def answering(store: MlflowStore) -> Iterator[None]:
    """Within it, a store that does not answer raises a `TransientError`; a retry may succeed."""
    try:
        yield
    except (MlflowException, requests.RequestException) as err:
        if not _is_away(err):
            raise
        raise TransientError(f"{store.shown} does not answer: {store.masked(err)}") from err


def _is_away(err: BaseException) -> bool:
    if isinstance(err, MlflowException):
        return err.error_code == _LOCKED or _NO_ANSWER.match(str(err)) is not None
    return isinstance(err, requests.ConnectionError | requests.Timeout)


def is_missing(err: MlflowException) -> bool:
    """Whether MLflow says that there is no such thing, and not that it could not look."""
    return err.error_code in _MISSING


def code_version() -> str:
    """The version of coinml that runs here."""
    return importlib.metadata.version("coinml")
