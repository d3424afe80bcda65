"""Letting go of runs and versions of MLflow's store that nothing needs any more.

Kept always: versions with an alias, versions that the gate has not judged, and their runs. Of the
other runs, the latest of each kind stay (heads and sweeps for each head, studies for each study);
nested runs go with the run that they are in.
"""

from __future__ import annotations

import re
import shutil
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import ViewType
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from coinml.registry.stored_encoders import EXPERIMENT, encoders_in_use
from coinml.registry.versions import all_results, list_versions
from coinml.tracking.mlflow_store import MlflowStore
from coinml.tracking.test_looks import add_looks_of_deleted, is_look

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_ID = re.compile(r"(?:m-)?[0-9a-f]{32}")
"""Names of the artifact folders of a run and of a model."""

_ENCODER = re.compile(r"[0-9a-f]{12}")

_LET_GO = "coinml.let_go"
"""Tag of a run that was deleted here, until its rows are removed."""

_UNFINISHED_DAYS = 1.0
"""Age from which an encoder that is being stored is taken for one that nobody will finish."""

_BATCH = 200
_DAY_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OldRun:
    """A run that nothing needs any more.

    Attributes:
        run_id: Its id.
        experiment_id: Its experiment.
        name: Its display name.
        kind: Its tag `kind`.
        model: The registered model of its version, or "".
        version: The number of its version; None without one.
        is_look: Whether it was evaluated on test videos.
        models: Ids of its models.
        folders: Its artifact folders on this machine.
        size_bytes: Size of these folders.
    """

    run_id: str
    experiment_id: str
    name: str
    kind: str
    model: str
    version: int | None
    is_look: bool
    models: tuple[str, ...]
    folders: tuple[Path, ...]
    size_bytes: int


def find_old_runs(
    store: MlflowStore, *, keep: int, min_age_days: float, now_s: float | None = None
) -> list[OldRun]:
    """The runs beyond the latest ones, the oldest first.

    Args:
        store: Where they are.
        keep: Number of runs of each kind that stay, at least 1.
        min_age_days: Runs that ended more recently stay.
        now_s: Seconds since the epoch; None: the current time.

    Raises:
        TransientError: MLflow does not answer.
    """
    now_s = time.time() if now_s is None else now_s
    with store.outages_as_transient():
        versions = {row["run_id"]: row for row in list_versions(store)}
        runs = list(_runs(store, ViewType.ACTIVE_ONLY))
    folders = _folders_by_id(store.artifact_root)
    models = _models_by_run(store)
    children: dict[str, list[Run]] = defaultdict(list)
    groups: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        tags = run.data.tags
        if parent := tags.get(MLFLOW_PARENT_RUN_ID):
            children[parent].append(run)
        elif tags.get("kind"):
            of = tags.get("head", "") if tags["kind"] in ("head", "sweep") else ""
            key = (run.info.experiment_id, tags["kind"], of, tags.get("study", ""))
            groups[key].append(run)
    found = []
    for group in groups.values():
        group.sort(key=lambda run: run.info.start_time, reverse=True)
        for run in group[keep:]:
            version = versions.get(run.info.run_id)
            if version is not None and (version["aliases"] or "gate" not in version["tags"]):
                continue
            together = [*children[run.info.run_id], run]
            if all(_is_over(one, now_s, min_age_days) for one in together):
                found += [_old_run(one, versions, folders, models) for one in together]
    order = {run.info.run_id: run.info.start_time for run in runs}
    return sorted(found, key=lambda one: order[one.run_id])


def delete_old_runs(store: MlflowStore, runs: Sequence[OldRun], *, database: str | None) -> None:
    """Delete runs with their versions, models and artifacts, for good.

    How often the test videos were looked at is remembered. It may be killed; the next call goes on.

    Args:
        store: Where they are.
        runs: From `find_old_runs`.
        database: URL of the store's database, from which rows are removed. None: runs and models
            only get the state "deleted", as in MLflow's pages, and `mlflow gc` removes them.

    Raises:
        TransientError: MLflow does not answer.
    """
    client = store.client()
    rows: Any = None
    if database is not None:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        # `mlflow gc --run-ids` uses the same methods, but removes with these runs every experiment
        # that somebody has deleted and may want to restore.
        rows = SqlAlchemyStore(database, "")  # type: ignore[no-untyped-call]
    for start in range(0, len(runs), _BATCH):
        some = runs[start : start + _BATCH]
        with store.outages_as_transient():
            # First: a count that is too high after a kill is no claim that is too good.
            add_looks_of_deleted(store, [one.experiment_id for one in some if one.is_look])
            for one in some:
                if one.version is not None:
                    _delete_version(client, one.model, str(one.version))
                for model in one.models:
                    client.delete_logged_model(model)
                    if rows is not None:
                        rows._hard_delete_logged_model(model)
                client.set_tag(one.run_id, _LET_GO, "true")
                client.delete_run(one.run_id)
                for folder in one.folders:
                    shutil.rmtree(folder, ignore_errors=True)
    if rows is not None:
        for run in list(_runs(store, ViewType.DELETED_ONLY)):
            if _LET_GO in run.data.tags:
                rows._hard_delete_run(run.info.run_id)


def find_unused_encoders(store: MlflowStore, *, min_age_days: float) -> list[tuple[Path, int]]:
    """Folders on this machine of stored encoders that no model needs: with sizes.

    Raises:
        TransientError: MLflow does not answer.
    """
    with store.outages_as_transient():
        experiment = store.client().get_experiment_by_name(EXPERIMENT)
        used = encoders_in_use(store) if experiment is not None else set()
    if experiment is None:
        return []
    # A server has a folder for the experiment's id, a local store one for its name.
    roots = (store.artifact_root / one for one in (EXPERIMENT, str(experiment.experiment_id)))
    return [
        (folder, _size_of(folder))
        for root in roots
        for folder in sorted(root.glob("*"))
        if _is_unused(folder, used, min_age_days)
    ]


def remove_unused_encoder(store: MlflowStore, folder: Path) -> None:
    """Remove a stored encoder, unless a model has come to need it.

    Raises:
        TransientError: MLflow does not answer.
    """
    digest = folder.name.removeprefix(".").removesuffix(".unused")
    final, hidden = folder.with_name(digest), folder.with_name(f".{digest}.unused")
    # Who registers a model names the encoder first and then looks for it: either the model is seen
    # here after the folder is hidden, or the folder is missed there and stored again.
    folder.rename(hidden)
    try:
        with store.outages_as_transient():
            needed = digest in encoders_in_use(store)
    except BaseException:
        if not folder.exists():
            hidden.rename(folder)
        raise
    if needed and not final.exists():
        hidden.rename(final)
        return
    shutil.rmtree(hidden, ignore_errors=True)


def find_orphans(store: MlflowStore, *, min_age_days: float) -> list[tuple[Path, int]]:
    """Artifact folders on this machine of runs and models that MLflow does not know: with sizes.

    MLflow's own `gc` leaves folders of models, and so does a process that is killed.

    Raises:
        TransientError: MLflow does not answer.
    """
    client = store.client()
    with store.outages_as_transient():
        known = {str(run.info.run_id) for run in _runs(store, ViewType.ALL)}
        ids = _experiment_ids(store)
        for model in all_results(client.search_logged_models, ids) if ids else ():
            known.add(str(model.model_id))
        for version in all_results(client.search_model_versions):
            known |= set(_ID.findall(f"{version.source} {version.model_id}"))
    before_s = time.time() - min_age_days * _DAY_S
    return [
        (folder, _size_of(folder))
        for name, folder in sorted(_folders_by_id(store.artifact_root).items())
        if name not in known and folder.stat().st_mtime < before_s
    ]


def _is_unused(folder: Path, used: Collection[str], min_age_days: float) -> bool:
    if folder.name.startswith("."):
        # Left by a process that was killed while it stored or removed an encoder.
        min_age_days = max(min_age_days, _UNFINISHED_DAYS)
    elif not _ENCODER.fullmatch(folder.name) or folder.name in used:
        return False
    return folder.stat().st_mtime < time.time() - min_age_days * _DAY_S


def _delete_version(client: MlflowClient, model: str, version: str) -> None:
    """Delete a version with its tags; MLflow keeps them, and a row by which it goes on counting."""
    for tag in client.get_model_version(model, version).tags:
        # Without it, the version would be one that was not judged if this process is killed now.
        if tag != "gate":
            client.delete_model_version_tag(model, version, tag)
    client.delete_model_version(model, version)


def _is_over(run: Run, now_s: float, min_age_days: float) -> bool:
    end_ms = run.info.end_time
    return (
        run.info.status != "RUNNING"
        and end_ms is not None
        and end_ms / 1000 <= now_s - min_age_days * _DAY_S
    )


def _old_run(
    run: Run,
    versions: dict[str, dict[str, Any]],
    folders: dict[str, Path],
    models: dict[str, list[str]],
) -> OldRun:
    run_id = str(run.info.run_id)
    version = versions.get(run_id)
    mine = [folders[one] for one in (run_id, *models.get(run_id, ())) if one in folders]
    return OldRun(
        run_id=run_id,
        experiment_id=str(run.info.experiment_id),
        name=str(run.info.run_name),
        kind=run.data.tags.get("kind", ""),
        model="" if version is None else version["model"],
        version=None if version is None else version["version"],
        is_look=is_look(run),
        models=tuple(models.get(run_id, ())),
        folders=tuple(mine),
        size_bytes=sum(map(_size_of, mine)),
    )


def _models_by_run(store: MlflowStore) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    if ids := _experiment_ids(store):
        for model in all_results(store.client().search_logged_models, ids):
            found[str(model.source_run_id)].append(str(model.model_id))
    return found


def _experiment_ids(store: MlflowStore) -> list[str]:
    found = all_results(store.client().search_experiments, view_type=ViewType.ALL)
    return [str(one.experiment_id) for one in found]


def _runs(store: MlflowStore, view: int) -> Iterator[Run]:
    ids = _experiment_ids(store)
    yield from all_results(store.client().search_runs, ids, run_view_type=view) if ids else ()


def _folders_by_id(root: Path) -> dict[str, Path]:
    """The folders of runs and models below the artifacts, by id."""
    return {
        path.name: path
        for pattern in ("*/*", "*/models/*")
        for path in root.glob(pattern)
        if _ID.fullmatch(path.name) and path.is_dir()
    }


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
