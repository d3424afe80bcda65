"""An event that the server has dropped, or given up, is made good by a later run."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.server.utilities.messaging.memory import MemoryMessage, Subscription, Topic
from prefect.settings import PREFECT_API_URL
from prefect.variables import Variable

from coinml.selection import Selection
from coinml_ops.prefect_server.dead_letters import AGE_S, GIVEN_UP_S, retry_dead_letters
from coinml_ops.stack.health import Api
from flows.embed import embed
from tasks import lost_events
from tasks.lost_events import PREFIX, emit_lost_events, remember

SELECTION = Selection(dataset="COIN.json", name="toy").model_dump(mode="json")
PAYLOAD = {"new": 3, "selection": SELECTION, "source": None}
RESOURCE = {"prefect.resource.id": "coinml.dataset.toy", "prefect.resource.name": "toy"}


@flow
def hourly() -> list[str]:
    """A flow that looks for lost events."""
    return emit_lost_events()


def run_of_deployment() -> list[str]:
    with get_client(sync_client=True) as client:
        made = client.create_deployment(flow_id=client.create_flow(hourly), name="lost")
        run = client.create_flow_run_from_deployment(made)
    found: Any = run_flow(hourly, flow_run=run)
    return list(found)


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    def forget() -> None:
        with get_client(sync_client=True) as client:
            for one in client.request("POST", "/variables/filter", json={}).json():
                if one["name"].startswith(PREFIX):
                    client.delete_variable_by_name(one["name"])

    forget()
    yield
    forget()
    with get_client(sync_client=True) as client:
        for one in client.read_deployments():
            if one.name == "lost":
                client.delete_deployment(one.id)


def happened(ago: timedelta) -> None:
    """Let the one event that is remembered be so old."""
    with get_client(sync_client=True) as client:
        found = client.request("POST", "/variables/filter", json={}).json()
    (one,) = [each for each in found if each["name"].startswith(PREFIX)]
    value = one["value"] | {"occurred": (datetime.now(UTC) - ago).isoformat()}
    Variable.set(one["name"], value, overwrite=True)


def test_an_event_that_started_no_run_is_emitted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    emitted: list[tuple[str, Any, Any]] = []

    def record(event: str, *, resource: Any, payload: Any) -> None:
        emitted.append((event, resource, payload))

    monkeypatch.setattr(lost_events, "emit_event", record)
    remember("coinml.collected", RESOURCE, PAYLOAD, "embed/lost")
    happened(timedelta(minutes=50))
    # Nothing is started by it here.
    assert run_of_deployment() == []
    with get_client(sync_client=True) as client:
        embedding = client.create_deployment(flow_id=client.create_flow(embed), name="lost")
    assert hourly() == []
    assert run_of_deployment() == ["coinml.collected"]
    assert emitted == [("coinml.collected", RESOURCE, PAYLOAD)]
    # The next event on the same videos takes its place; it may still start a run.
    remember("coinml.collected", RESOURCE, PAYLOAD, "embed/lost")
    assert run_of_deployment() == []
    happened(timedelta(days=2))
    assert run_of_deployment() == []
    happened(timedelta(minutes=50))
    with get_client(sync_client=True) as client:
        # A run of other videos is none of it.
        client.create_flow_run_from_deployment(embedding, parameters={"selection": {"name": "a"}})
        assert run_of_deployment() == ["coinml.collected"]
        client.create_flow_run_from_deployment(embedding, parameters={"selection": SELECTION})
    assert run_of_deployment() == []


def test_a_dead_letter_of_coinml_is_sent_again(tmp_path: Path) -> None:
    now = time.time()
    letters = tmp_path / "letters"
    letters.mkdir()

    def letter(name: str, event: str, *, age_s: float) -> Path:
        written = {
            "id": str(uuid4()),
            "occurred": datetime.now(UTC).isoformat(),
            "received": datetime.now(UTC).isoformat(),
            "event": event,
            "resource": RESOURCE,
            "related": [],
            "payload": PAYLOAD,
            "follows": None,
        }
        folder = tmp_path / "written"
        broker = Subscription(Topic("events"), dead_letter_queue_path=folder)
        message = MemoryMessage(json.dumps(written).encode(), {"id": written["id"]}, 4)
        asyncio.run(broker.send_to_dead_letter_queue(message))
        (made,) = folder.iterdir()
        path = made.rename(letters / name)
        os.utime(path, (now - age_s, now - age_s))
        return path

    event = f"coinml.letter-{uuid4().hex[:8]}"
    ours = letter("ours", event, age_s=AGE_S + 1)
    others = [
        letter("young", event, age_s=10),
        letter("old", event, age_s=GIVEN_UP_S + 1),
        letter("prefects", "prefect.flow-run.Pending", age_s=AGE_S + 1),
        letters / "broken",
    ]
    others[-1].write_text("{")
    os.utime(others[-1], (now - AGE_S - 1,) * 2)

    # While the server is away, the letter stays.
    assert retry_dead_letters(letters, Api("http://127.0.0.1:9/api").post, now=now) == []
    assert ours.exists()
    api = Api(str(PREFECT_API_URL.value()))
    assert retry_dead_letters(letters, api.post, now=now) == [event]
    assert not ours.exists()
    assert all(one.exists() for one in others)
    wanted = {"filter": {"event": {"name": [event]}}}
    deadline = time.monotonic() + 60
    found: list[Any] = []
    while not found and time.monotonic() < deadline:
        found = json.loads(api.post("/events/filter", wanted))["events"]
        time.sleep(0.2)
    assert [one["payload"] for one in found] == [PAYLOAD]
    assert retry_dead_letters(tmp_path / "none", api.post, now=now) == []
