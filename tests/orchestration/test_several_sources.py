"""The collect flow with several hosts on loopback, of which some refuse or are slow."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from coinml.collection.options import CollectOptions
from coinml.ledger import DOWNLOADED, PENDING, Ledger, LedgerRow
from coinml.miniature.host import FlakyHost
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from flows.collect import collect

Coin = tuple[Path, list[str]]


@pytest.fixture
def start(tmp_path: Path, coin: Coin) -> Iterator[Callable[..., FlakyHost]]:
    """A function that starts a host with some of the videos."""
    with ExitStack() as stack:

        def host(has: Sequence[str], **plan: Any) -> FlakyHost:
            folder = tmp_path / f"host{len(list(tmp_path.glob('host*')))}"
            folder.mkdir()
            for video_id in has:
                os.link(coin[0] / "videos" / f"{video_id}.mp4", folder / f"{video_id}.mp4")
            return stack.enter_context(FlakyHost(folder, plan))

        yield host


def rows() -> dict[str, LedgerRow]:
    with Ledger(Settings().ledger_url) as ledger:
        return {row.video_id: row for row in ledger.rows("toy")}


def sources(*hosts: FlakyHost) -> tuple[str, ...]:
    return tuple(host.source for host in hosts)


def test_the_union_comes_and_a_source_that_refuses_delays_nobody(
    home: Path, coin: Coin, selection: Selection, start: Callable[..., FlakyHost]
) -> None:
    ids = coin[1]
    rule = {"after_requests": 0, "answer": "429", "retry_after_s": 900, "times": None}
    refusing, b, c = hosts = (start(ids, source=[rule]), start(ids[:14]), start(ids[10:22]))
    options = CollectOptions(source=sources(*hosts), batch_size=4, max_wait_s=2)
    report = collect(selection, options)
    found = rows()
    brought = [found[one].source for one in ids]
    expected = [f"127.0.0.1:{b.port}"] * 14 + [f"127.0.0.1:{c.port}"] * 8
    assert brought == [*expected, None, None]
    assert [found[one].state for one in ids[22:]] == [PENDING] * 2
    assert (report.downloaded, report.still_due, report.complete) == (22, 2, False)
    assert report.blocked_until is not None
    # The batches that had begun before the first refusal have asked once each, and nobody since.
    asked = len(refusing.requests())
    assert asked <= Settings().parallel
    again = collect(selection, options)
    assert (again.fetched, len(refusing.requests())) == (0, asked)
    # What was gone at the others is not asked for again there.
    assert [host.log()[ids[22]] for host in (b, c)] == [1, 1]


def test_a_slow_source_does_not_hold_up_what_another_one_has(
    home: Path,
    coin: Coin,
    selection: Selection,
    start: Callable[..., FlakyHost],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COINML_PARALLEL", "3")
    ids = coin[1]
    slow = start(ids[:12], videos={one: ["ok", "slow"] for one in ids[:12]}, slow_s=2)
    other = start(ids[12:])
    options = CollectOptions(source=sources(slow, other), batch_size=3)
    report = collect(selection, options)
    assert (report.downloaded, report.complete) == (24, True)
    found = rows()
    moments = {
        host: sorted(
            row.updated_at
            for row in found.values()
            if row.source == f"127.0.0.1:{host.port}" and row.updated_at is not None
        )
        for host in (slow, other)
    }
    assert (len(moments[slow]), len(moments[other])) == (12, 12)
    # The other one was asked while the slow one was still at work.
    assert moments[other][0] < moments[slow][-1]
    assert {row.state for row in found.values()} == {DOWNLOADED}


def test_a_list_of_sources_is_a_parameter_of_the_flow() -> None:
    """As Prefect's form and `prefect.yaml` give it, and as one text."""
    from prefect.utilities.callables import parameter_schema
    from prefect.utilities.schema_tools.validation import validate

    schema = parameter_schema(collect).model_dump()
    several = ["https://tube.example/{id}", "/copies"]
    for source in (several, several[0], None):
        parameters = {"selection": {"dataset": "mini"}, "collection": {"source": source}}
        validate(parameters, schema, raise_on_error=True)
        given = collect.validate_parameters(parameters)["collection"].source
        assert given == (tuple(several) if source is several else source)
