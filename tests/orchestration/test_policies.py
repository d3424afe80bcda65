"""Transient errors are retried, and no others."""

from __future__ import annotations

import pytest
from prefect import flow, task
from prefect.states import State

from coinml.errors import CorruptVideoError, LocalError, TransientError
from tasks.download import download_batch
from tasks.embedding import embed_shard
from tasks.policies import only_transient


@pytest.mark.parametrize(
    ("error", "attempts", "name"),
    [
        (TransientError("reset"), 3, "Completed"),
        (CorruptVideoError("broken"), 1, "Failed"),
        (LocalError("disk full"), 1, "Failed"),
        (ValueError("a mistake"), 1, "Failed"),
    ],
)
def test_only_transient_errors_are_retried(error: Exception, attempts: int, name: str) -> None:
    tried = []

    @task(retries=3, retry_delay_seconds=0, retry_condition_fn=only_transient)
    def work() -> int:
        tried.append(1)
        if len(tried) < 3:
            raise error
        return len(tried)

    @flow
    def once() -> State[int]:
        return work(return_state=True)

    state = once(return_state=True)
    assert len(tried) == attempts
    assert state.name == name


def test_the_tasks_have_the_retry_policy() -> None:
    for one in (download_batch, embed_shard):
        assert one.retries == 3
        assert one.retry_condition_fn is only_transient
