"""Removing what a home needs no longer: old runs and versions, leftovers, and long logs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from coinml.runtime.settings import Settings
from coinml.tracking.mlflow_store import MlflowStore
from coinml.upkeep.gc_options import GcOptions

_DAY_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GcItem:
    """Something that is not needed any more.

    Attributes:
        kind: `run`, `artifacts`, `encoder`, `part`, `study file`, `sweep` or `log`.
        name: What it is, as a text for people.
        size_bytes: What it takes on this machine's disk, as far as it is known.
    """

    kind: str
    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GcReport:
    """What was found, or removed.

    Attributes:
        deleted: Whether it was removed.
        items: Each of it.
        left_to_mlflow: Runs whose rows `mlflow gc` has to remove, since the database is elsewhere.
    """

    deleted: bool
    items: tuple[GcItem, ...]
    left_to_mlflow: int = 0

    @property
    def size_bytes(self) -> int:
        """What all of it takes."""
        return sum(item.size_bytes for item in self.items)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Number and size in bytes by kind."""
        kinds = dict.fromkeys(item.kind for item in self.items)
        return {
            kind: (
                sum(item.kind == kind for item in self.items),
                sum(item.size_bytes for item in self.items if item.kind == kind),
            )
            for kind in kinds
        }

    def __str__(self) -> str:
        """One line for people."""
        if not self.items:
            return "nothing to remove"
        verb = "removed" if self.deleted else "could be removed"
        kinds = ", ".join(f"{number} {kind}" for kind, (number, _) in self.counts().items())
        return f"{self.size_bytes / 1e6:,.1f} MB {verb}: {kinds}"


def collect_garbage(
    settings: Settings, store: MlflowStore, options: GcOptions, *, delete: bool
) -> GcReport:
    """Find what is not needed any more, and remove it if told so.

    It may run while the home is in use, and may be killed: the next call goes on.

    Args:
        settings: The home's.
        store: Its runs.
        options: What is kept.
        delete: Whether to remove what is found.

    Raises:
        TransientError: MLflow does not answer.
        LocalError: An embedding set cannot be reached.
    """
    from coinml.registry import retention

    runs = retention.find_old_runs(store, keep=options.keep, min_age_days=options.min_age_days)
    database = _own_database(settings, store)
    if delete:
        retention.delete_old_runs(store, runs, database=database)
    items = [
        GcItem(
            kind="run",
            name=f"{one.name} ({one.run_id}"
            + (f", version {one.version} of {one.model})" if one.version else ")"),
            size_bytes=one.size_bytes,
        )
        for one in runs
    ]
    # After the runs: what a killed call has left of them is among the orphans of the next one.
    for folder, size_bytes in retention.find_orphans(store, min_age_days=options.min_age_days):
        items.append(GcItem(kind="artifacts", name=str(folder), size_bytes=size_bytes))
        if delete:
            shutil.rmtree(folder, ignore_errors=True)
    for folder, size_bytes in retention.find_unused_encoders(
        store, min_age_days=options.min_age_days
    ):
        items.append(GcItem(kind="encoder", name=str(folder), size_bytes=size_bytes))
        if delete:
            retention.remove_unused_encoder(store, folder)
    for find in (_sweeps, _parts, _study_files, _logs):
        for item, remove in find(settings, store, options):
            items.append(item)
            if delete:
                remove()
    return GcReport(
        deleted=delete,
        items=tuple(items),
        left_to_mlflow=len(runs) if delete and database is None else 0,
    )


_Found = Iterator[tuple[GcItem, Callable[[], object]]]
"""What is not needed any more, each with the function that removes it."""


def _own_database(settings: Settings, store: MlflowStore) -> str | None:
    """URL of the database in this home, if the store's runs are in it."""
    own = settings.home / "mlflow.db"
    if store.uri.startswith("sqlite:///"):
        return store.uri
    if not own.is_file():
        return None
    # The server of `up`: its experiments are those of this file.
    beside = MlflowStore(uri=f"sqlite:///{own}", artifact_root=settings.artifact_root)
    served = {one.experiment_id: one.name for one in store.client().search_experiments()}
    ours = {one.experiment_id: one.name for one in beside.client().search_experiments()}
    store.client()
    return beside.uri if served == ours else None


def _sweeps(settings: Settings, store: MlflowStore, options: GcOptions) -> _Found:
    """Trials, in optuna's file, of sweeps that have no run any more."""
    from coinml.training import sweep

    storage = settings.data_dir / "sweeps.db"
    if not storage.is_file():
        return
    client = store.client()
    known: set[str] = set()
    for experiment in client.search_experiments():
        known |= {
            str(store.read_run(run_id).data.tags.get("sweep"))
            for run_id in store.find_runs(experiment.name, {"kind": "sweep"}, finished=False)
        }
    before_s = time.time() - options.min_age_days * _DAY_S
    for name in sweep.sweeps_before(storage, before_s):
        if name not in known:
            yield (
                GcItem(kind="sweep", name=f"trials of {name}", size_bytes=0),
                partial(sweep.forget_sweep, storage, name),
            )


def _parts(settings: Settings, _store: MlflowStore, options: GcOptions) -> _Found:
    """Damaged parts and specs that were set aside, and unfinished files of killed processes."""
    from coinml.embedding_sets import find_sets
    from coinml.embedding_sets.places import remove_file, sizes_in

    sets, _ = find_sets(settings.embeddings_root)
    for one in sets:
        for name, size_bytes in sorted(sizes_in(one.filesystem, one.path).items()):
            path = f"{one.path}/{name}"
            if name.startswith("bad-") or ".partial" in name:
                modified_s = one.filesystem.modified(path).timestamp()
                if modified_s < time.time() - options.min_age_days * _DAY_S:
                    yield (
                        GcItem(kind="part", name=path, size_bytes=size_bytes),
                        partial(remove_file, one.filesystem, path),
                    )


def _study_files(settings: Settings, _store: MlflowStore, options: GcOptions) -> _Found:
    """Re-encoded files of studies that were killed."""
    folder = settings.data_dir / "studies"
    before_s = time.time() - options.min_age_days * _DAY_S
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file() and path.stat().st_mtime < before_s:
            yield (
                GcItem(kind="study file", name=str(path), size_bytes=path.stat().st_size),
                path.unlink,
            )


def _logs(settings: Settings, _store: MlflowStore, options: GcOptions) -> _Found:
    """Long logs: what they have until now becomes `.1`, in place of the one before."""
    for path in sorted(settings.logs_dir.glob("*.log")):
        size_bytes = path.stat().st_size
        if size_bytes > options.log_mb * 1e6:
            yield (
                GcItem(kind="log", name=str(path), size_bytes=size_bytes),
                partial(_begin_anew, path),
            )


def _begin_anew(path: Path) -> None:
    # Its writers have it open for appending: a renamed file would go on growing. What they write
    # between these two calls is lost.
    shutil.copyfile(path, path.with_name(f"{path.name}.1"))
    with path.open("r+b") as file:
        file.truncate(0)
