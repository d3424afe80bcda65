"""Tasks that run at the same time, and do a part of their work in the order of the calls."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from tasks.submitting import submit_in_turn
from tasks.threads import threads


def test_what_follows_the_turn_is_in_the_order_of_the_calls(home: Path) -> None:
    waits, order = threading.Event(), list[str]()

    @task(cache_policy=NO_CACHE)
    def work(name: str, *, turn: Callable[[], None]) -> str:
        if name == "fails":
            raise ValueError("broken")
        if name == "last":
            waits.set()
        else:
            # The last one has come to its turn, and the one between them has failed.
            assert waits.wait(60)
        turn()
        order.append(name)
        return name

    @flow(task_runner=threads(3))
    def run() -> list[object]:
        names = ("first", "fails", "last")
        futures = submit_in_turn(work, [{"name": name} for name in names])
        return [future.result(raise_on_failure=False) for future in futures]

    first, failed, last = run()
    assert (first, last) == ("first", "last")
    assert isinstance(failed, ValueError)
    assert order == ["first", "last"]


def test_one_thread_is_enough(home: Path) -> None:
    @task(cache_policy=NO_CACHE)
    def work(name: str, *, turn: Callable[[], None]) -> str:
        turn()
        return name

    @flow(task_runner=threads(1))
    def run() -> list[str]:
        return [f.result() for f in submit_in_turn(work, [{"name": n} for n in "abc"])]

    assert run() == ["a", "b", "c"]
