"""What Prefect shows of a flow run: its name, and progress while it runs."""

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
"""Interval of progress updates; one per video would be most of a server's load."""

logger = logging.getLogger(__name__)


def rename_run(was: str, now: str) -> None:
    """Rename this flow run after its outcome, unless a user has named it.

    Args:
        was: The name that the flow gave it.
        now: The new name.
    """
    if not flow_run.id or flow_run.name != was:
        return
    try:
        with get_client(sync_client=True) as client:
            client.set_flow_run_name(UUID(str(flow_run.id)), now)
    except Exception as err:
        # The name is for display only; the run must not fail for it.
        logger.warning("the flow run keeps its name: %s", err)


@contextmanager
def progress_shown(dataset: str) -> Iterator[None]:
    """Within it, each stage has a progress artifact, `progress-<stage>-<dataset>`."""
    shown = ProgressArtifacts(dataset, every_s=EVERY_S)
    # A new thread does not know the flow run: that is in the context.
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
    published: tuple[int, int | None, bool] | None = None
    artifact: UUID | None = None

    @property
    def percent(self) -> float:
        if self.total is None:
            return 100.0 if self.ended else 0.0
        return 100.0 * min(self.done / self.total, 1.0) if self.total else 100.0


class ProgressArtifacts:
    """Counts the progress of stages and publishes it every few seconds, from its own thread."""

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
        """Count `items` more as done; a `total` replaces the former one."""
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
        """Publish changes until `stop` is called, and then once more."""
        while not self._stopped.wait(self._every_s):
            self._publish_changes()
        self._publish_changes()

    def stop(self) -> None:
        """Let `work` return."""
        self._stopped.set()

    def _publish_changes(self) -> None:
        for name, stage in list(self._stages.items()):
            now = (stage.done, stage.total, stage.ended)
            # A stage without work is not shown.
            if now == stage.published or not stage.done:
                continue
            try:
                self._publish(name, stage)
            except Exception as err:
                # Progress is for display only; the next turn tries again.
                logger.warning("progress of %s cannot be shown: %s", name, err)
            else:
                stage.published = now

    def _publish(self, name: str, stage: _Stage) -> None:
        of = "" if stage.total is None else f" of {stage.total:,}"
        description = f"{name} {self._dataset}: {stage.done:,}{of}"
        if stage.artifact is None:
            made = create_progress_artifact(
                stage.percent, key=key_of("progress", name, self._dataset), description=description
            )
            # The function returns a coroutine only under an event loop; this thread has none.
            stage.artifact = cast("UUID", made)
        else:
            update_progress_artifact(
                stage.artifact, progress=stage.percent, description=description
            )
