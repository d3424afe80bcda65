"""MLflow: experiments, runs and what is logged to them.

Only this room and `coinml.registry` import mlflow. Tracking URI and artifact root are always
passed explicitly: MLflow's defaults depend on the working folder and are stored as absolute paths.

If a server does not answer, MLflow's client retries a call for about four minutes
(`MLFLOW_HTTP_REQUEST_MAX_RETRIES` and related variables).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# No progress bars for single small files.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# MLflow would print the URL, with its password, to stdout, which is for results only.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# Otherwise MLflow takes a model's requirements from a uv project in the working folder.
os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")

import mlflow
import requests
from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from coinml.errors import InvalidInputError, TransientError
from coinml.runtime.addresses import Url, is_loopback, masked, parts_of, plain, without_user
from coinml.runtime.process_identity import is_dead, new_owner
from coinml.runtime.proxies import keep_loopback_direct
from coinml.runtime.settings import Settings
from coinml.tracking.experiments import experiment_id
from coinml.tracking.local_store import allows_folders, make_database
from coinml.tracking.metric_names import curve_name
from coinml.tracking.mlflow_errors import is_away, is_missing
from coinml.tracking.run_log import RunLog
from coinml.tracking.run_origin import origin_tags

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

OWNER = "coinml.process"
"""Tag with the process that writes the run."""

_untold: dict[str, str] = {}
"""Final status, by run id, of runs of this process that MLflow did not take."""

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.ERROR)


logger = logging.getLogger(__name__)


def home_store(settings: Settings | None = None) -> MlflowStore:
    """The MLflow store that the settings name; without settings, this machine's."""
    settings = settings or Settings()
    return MlflowStore(uri=settings.tracking_uri, artifact_root=settings.artifact_root)


@dataclass(frozen=True, slots=True, kw_only=True)
class MlflowStore:
    """Where runs are recorded.

    Attributes:
        uri: MLflow's tracking URI.
        artifact_root: Folder for the artifacts of a local store; a server has its own.

    Raises:
        InvalidInputError: The URI is malformed.
    """

    uri: str
    artifact_root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "uri", Url(self.uri))
        try:
            parts_of(self.uri)
        except ValueError as err:
            raise InvalidInputError(
                f"MLFLOW_TRACKING_URI {self.shown!r}: {err}; name a database, as "
                "sqlite:////path/to/mlflow.db, or a server, as http://host:5000"
            ) from err

    @property
    def shown(self) -> str:
        """The URI without its secrets, for messages and logs."""
        return str(self.uri)

    def client(self) -> MlflowClient:
        """A client of this store; also makes the store MLflow's default in this process.

        Raises:
            InvalidInputError: The store is a folder, which MLflow no longer supports.
            LocalError: The file of its database cannot be used.
        """
        address = self._address()
        if parts_of(address).scheme in ("", "file") and not allows_folders():
            raise InvalidInputError(
                f"MLFLOW_TRACKING_URI {address!r}: MLflow no longer keeps runs in a folder; name a "
                "database, as sqlite:////path/to/mlflow.db, or a server, as http://host:5000"
            )
        if mlflow.get_tracking_uri() != address:
            mlflow.set_tracking_uri(address)
            mlflow.set_registry_uri(address)
        # What follows `file:` is a URI with options, such as `mode=ro`.
        if self.uri.startswith("sqlite:///") and not self.uri.startswith("sqlite:///file:"):
            make_database(Path(self.uri.removeprefix("sqlite:///")), self.artifact_root)
        return mlflow.MlflowClient(address)

    def _address(self) -> str:
        """The URI without user and password, which go to environment variables.

        Otherwise MLflow would include them in its error messages.
        """
        parts = parts_of(self.uri)
        if parts.scheme in ("http", "https") and is_loopback(self.uri):
            keep_loopback_direct()
        if parts.scheme not in ("http", "https") or parts.username is None:
            return plain(self.uri)
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
        return without_user(self.uri)

    def experiment(self, name: str, *, description: str = "") -> str:
        """The id of an experiment, which is created if needed; tags are not overwritten.

        Raises:
            LocalError: The experiment is deleted; says how it is restored.
        """
        local = self.uri.startswith("sqlite")
        return experiment_id(
            self.client(),
            name,
            location=(self.artifact_root / name).resolve().as_uri() if local else None,
            description=description,
            shown=self.shown,
        )

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
        """Record a run. It ends FINISHED, or FAILED on an error, or KILLED on an interrupt.

        Args:
            experiment: Name of the experiment, which is created if needed.
            name: Display name of the run.
            tags: Tags of the run; `find_runs` searches by them.
            about: Description of the experiment (Markdown), set if it has none.
            parent_run_id: Run of the same experiment that this run is nested in.
            run_id: Continue this run instead of starting a new one.
        """
        client = self.client()
        self.end_abandoned(experiment)
        nested = {} if parent_run_id is None else {MLFLOW_PARENT_RUN_ID: parent_run_id}
        if run_id is None:
            run = client.create_run(
                self.experiment(experiment, description=about),
                run_name=name,
                tags={**origin_tags(), **tags, **nested, OWNER: new_owner()},
            )
            run_id = str(run.info.run_id)
        else:
            client.set_tag(run_id, OWNER, new_owner())
            client.update_run(run_id, status="RUNNING")
        try:
            yield RunLog(client, run_id)
        # The run must not stay RUNNING, whatever was raised.
        except Exception as err:
            self._end(run_id, "FAILED", away=is_away(err))
            raise
        except BaseException:
            self._end(run_id, "KILLED")
            raise
        client.set_terminated(run_id, "FINISHED")

    def _end(self, run_id: str, status: str, *, away: bool = False) -> None:
        """Set a run's final status, or keep it for `end_abandoned` if MLflow does not answer."""
        try:
            if away:
                # The client has already retried for minutes.
                _untold[run_id] = status
            else:
                self.client().set_terminated(run_id, status)
        except MlflowException:
            _untold[run_id] = status

    def finish(self, run_id: str) -> None:
        """Mark a run FINISHED whose work is complete although its process did not mark it."""
        client = self.client()
        if client.get_run(run_id).info.status != "FINISHED":
            client.set_terminated(run_id, "FINISHED")
        _untold.pop(run_id, None)

    def end_abandoned(self, experiment: str) -> list[str]:
        """Mark as KILLED the RUNNING runs of an experiment whose process died on this host.

        A killed process cannot set the status of its runs. Runs of this process whose final
        status MLflow did not take get that status now.

        Returns:
            The ids of the runs marked as KILLED.
        """
        client = self.client()
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return []
        running = client.search_runs([found.experiment_id], "attributes.status = 'RUNNING'")
        dead = [str(run.info.run_id) for run in running if is_dead(run.data.tags.get(OWNER, ""))]
        for run_id in dead:
            logger.info("run %s: its process is dead; marking it as KILLED", run_id)
            client.set_terminated(run_id, "KILLED")
        for run in running:
            if status := _untold.pop(str(run.info.run_id), None):
                client.set_terminated(run.info.run_id, status)
        return dead

    def find_runs(
        self, experiment: str, tags: Mapping[str, str], *, finished: bool = True
    ) -> list[str]:
        """Ids of the runs of an experiment with these tags, the latest first.

        Args:
            experiment: Name of the experiment.
            tags: Tags that a run must have, all of them.
            finished: Only runs with status FINISHED.
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
        """A run with its parameters, tags and final metrics.

        Raises:
            InvalidInputError: There is no run with this id.
            TransientError: MLflow does not answer.
        """
        try:
            return self.client().get_run(run_id)
        except MlflowException as err:
            if not is_missing(err):
                raise TransientError(f"{self.shown}: {self.masked(err)}") from err
            raise InvalidInputError(f"no run {run_id!r} at {self.shown}") from err

    def has_run(self, run_id: str) -> bool:
        """Whether there is such a run that is not deleted."""
        try:
            run = self.client().get_run(run_id)
        except MlflowException as err:
            if not is_missing(err):
                raise
            return False
        return bool(run.info.lifecycle_stage == LifecycleStage.ACTIVE)

    def page_of(self, run_id: str) -> str | None:
        """URL of a run's page; None if the store is not a server."""
        if not self.uri.startswith(("http://", "https://")):
            return None
        experiment = self.read_run(run_id).info.experiment_id
        return f"{without_user(self.uri)}/#/experiments/{experiment}/runs/{run_id}"

    def read_history(self, run_id: str) -> pd.DataFrame:
        """Metrics that a run logged at several steps: a table with `step` and a column a metric.

        The columns have coinml's names, such as `val_loss`.

        Raises:
            InvalidInputError: There is no run with this id.
        """
        import pandas as pd

        client = self.client()
        columns = {}
        for name in sorted(self.read_run(run_id).data.metrics):
            curve = curve_name(name)
            if curve is None and "/" in name:
                continue
            history = client.get_metric_history(run_id, name)
            if len(history) > 2:
                columns[curve or name] = pd.Series({one.step: one.value for one in history})
        table = pd.DataFrame(columns).sort_index()
        return table.rename_axis("step").reset_index()

    def read_table(self, run_id: str, name: str) -> pd.DataFrame:
        """A table that `RunLog.table` logged.

        Raises:
            InvalidInputError: The run has no such table, or it cannot be read.
        """
        import tempfile

        import pandas as pd

        with tempfile.TemporaryDirectory() as folder:
            path = self._download(run_id, f"tables/{name}.parquet", folder)
            if path is None:
                raise InvalidInputError(f"run {run_id!r} has no table {name!r}")
            try:
                return pd.read_parquet(path)
            except (OSError, ValueError) as err:
                raise InvalidInputError(f"run {run_id!r}: table {name!r}: {err}") from err

    def read_figure(self, run_id: str, name: str) -> bytes | None:
        """A figure that `RunLog.figure` logged, as PNG; None if the run has no such figure."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = self._download(run_id, f"figures/{name}.png", folder)
            return None if path is None else Path(path).read_bytes()

    def _download(self, run_id: str, path: str, folder: str) -> str | None:
        """Download an artifact into a folder; None if the run has no such artifact.

        Raises:
            TransientError: MLflow or the artifact store does not answer.
        """
        client = self.client()
        try:
            return str(client.download_artifacts(run_id, path, folder))
        except (MlflowException, OSError) as err:
            # A missing artifact and an unreachable store raise the same errors; a listing decides.
            try:
                listed = client.list_artifacts(run_id, path.rpartition("/")[0] or None)
            except (MlflowException, OSError) as again:
                if isinstance(again, MlflowException) and is_missing(again):
                    return None
                raise TransientError(f"{self.shown}: {self.masked(again)}") from again
            if any(one.path == path for one in listed):
                raise TransientError(f"{self.shown}: {self.masked(err)}") from err
            return None

    @contextmanager
    def outages_as_transient(self) -> Iterator[None]:
        """Raise `TransientError`, which tasks retry, if MLflow does not answer in the block."""
        try:
            yield
        except (MlflowException, requests.RequestException) as err:
            if not is_away(err):
                raise
            raise TransientError(f"{self.shown} does not answer: {self.masked(err)}") from err

    def masked(self, err: BaseException) -> str:
        """An error's message without the secrets of the URI."""
        return masked(str(err).replace(self.uri, self.shown))
