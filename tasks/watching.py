"""What can be seen of a flow run in a list, and while it goes on: its name and its progress."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from coinml.runtime import progress
from tasks.artifact_keys import key_of

EVERY_S = 5.0
"""So often progress is told; a call for each video would be most of the load of a server."""

logger = logging.getLogger(__name__)


def rename_run(was: str, now: str) -> None:
    """Give this flow run the name that says what came of it, unless somebody named it otherwise.

    Args:
        was: The name that it began with.
        now: What stands in the list from here on.
    """
    if not flow_run.id or flow_run.name != was:
        return
    try:
        with get_client(sync_client=True) as client:
            client.set_flow_run_name(UUID(str(flow_run.id)), now)
    except Exception as err:
        # What is only looked at must not end the work.
        logger.warning("the flow run keeps its name: %s", err)


@contextmanager
def progress_shown(dataset: str) -> Iterator[None]:
    """Within it, each stage has a progress artifact, `progress-<stage>-<dataset>`."""
    shown = ProgressArtifacts(dataset, every_s=EVERY_S)
    # A thread has no flow run of its own.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(shown.work,))
    thread.start()
    try:
        with progress.listening(shown):
            yield
    finally:
        shown.stop()
        thread.join()


@dataclass
class _Stage:
    done: int = 0
    total: int | None = None
    ended: bool = False
    told: tuple[int, int | None, bool] | None = None
    artifact: UUID | None = None

    @property
    def percent(self) -> float:
        if self.total is None:
            return 100.0 if self.ended else 0.0
        return 100.0 * min(self.done / self.total, 1.0) if self.total else 100.0


class ProgressArtifacts:
    """Counts what stages report and tells Prefect every few seconds, from a thread of its own."""

    def __init__(self, dataset: str, *, every_s: float) -> None:
        self._dataset = dataset
        self._every_s = every_s
        self._stages: dict[str, _Stage] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def begin(self, stage: str, total: int | None) -> None:
        """A stage of `total` items begins."""
        with self._lock:
            self._stages[stage] = _Stage(total=total)

    def advance(self, stage: str, items: int, total: int | None) -> None:
        """`items` more are done."""
        with self._lock:
            if stage in self._stages:
                self._stages[stage].done += items
                self._stages[stage].total = total or self._stages[stage].total

    def end(self, stage: str) -> None:
        """The stage is over."""
        with self._lock:
            if stage in self._stages:
                self._stages[stage].ended = True

    def work(self) -> None:
        """Tell what is new until `stop` is called, and then once more."""
        while not self._stopped.wait(self._every_s):
            self._tell()
        self._tell()

    def stop(self) -> None:
        """Let `work` return."""
        self._stopped.set()

    def _tell(self) -> None:
        for name, stage in list(self._stages.items()):
            now = (stage.done, stage.total, stage.ended)
            # What had nothing to do is no stage to look at.
            if now == stage.told or not stage.done:
                continue
            try:
                self._publish(name, stage)
            except Exception as err:
                # What is only looked at must not end the work; the next turn tries again.
                logger.warning("progress of %s cannot be shown: %s", name, err)
            else:
                stage.told = now

    def _publish(self, name: str, stage: _Stage) -> None:
        of = "" if stage.total is None else f" of {stage.total:,}"
        told = f"{name} {self._dataset}: {stage.done:,}{of}"
        if stage.artifact is None:
            made = create_progress_artifact(
                stage.percent, key=key_of("progress", name, self._dataset), description=told
            )
            # A coroutine where there is an event loop; in this thread there is none.
            stage.artifact = cast("UUID", made)
        else:
            update_progress_artifact(stage.artifact, progress=stage.percent, description=told)
