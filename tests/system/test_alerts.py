"""Alerts on a real Prefect server: what is emitted arrives at webhook and mailbox, once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tasks.alerts import ALERTS
from tests.helpers.prefect_stack import (
    PrefectStack,
    prefect_stack,
    wait_for,
)
from tests.helpers.receivers import HookServer, MailServer, serving

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]

HOOK_SECRET, MAIL_SECRET = "hook-Qm3xT7vb", "mail-Zk8wP2ye"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectStack]:
    with prefect_stack(tmp_path_factory.mktemp("alerts") / "home") as stack:
        yield stack


def alerts(stack: PrefectStack, *arguments: str, says: str | None = None) -> Any:
    """The JSON of `coinml alerts`, which fails and says something if that is given."""
    run = subprocess.run(
        [sys.executable, "-P", "-m", "coinml_cli", "alerts", *arguments, "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env=stack.client_environment,
    )
    for secret in (HOOK_SECRET, MAIL_SECRET):
        assert secret not in run.stdout + run.stderr
    if says is not None:
        assert says in run.stdout + run.stderr
        return run.returncode
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def _fail_twice_and_recover(
    stack: PrefectStack, mail: MailServer, make_video: Callable[..., Path]
) -> None:
    """Runs of a worker: the second failure is told, and the success after it."""
    stack.start_worker("collector", "network")
    before = len(mail.got)
    empty, folder = stack.home / "empty", stack.home / "clips"
    empty.mkdir()
    for number in range(6):
        place = folder / ("jump" if number % 2 else "swim")
        place.mkdir(parents=True, exist_ok=True)
        make_video(place / f"{number}.mp4", seconds=1.0, seed=number)
    for place, end in ((empty, "FAILED"), (empty, "FAILED"), (folder, "COMPLETED")):
        run = stack.run("collect/hourly", selection={"dataset": f"folder:{place}"})
        stack.await_state(run, end, within_s=200)
    wait_for(lambda: len(mail.got) == before + 2, 60, "the alerts to arrive")
    failed, recovered = mail.got[before:]
    assert "Subject: collect/hourly: failed" in failed
    assert "2 runs in a row have failed." in failed
    assert "Subject: collect/hourly: no longer failed" in recovered


def test_alerts_arrive_and_their_addresses_stay_secret(
    stack: PrefectStack, make_video: Callable[..., Path]
) -> None:
    with HookServer() as hook, MailServer() as mail, serving(hook), serving(mail):
        address = f"{hook.url}/{HOOK_SECRET}?key={HOOK_SECRET}"
        postbox = (
            f"mailto://ann:{MAIL_SECRET}@127.0.0.1:{mail.port}"
            "?from=coinml@example.org&to=ann@example.org"
        )
        shown = {"number": 1, "kind": "webhook", "address": f"{hook.url}/…", "enabled": True}
        assert alerts(stack, "add", address) == shown | {"new": True}
        assert alerts(stack, "add", address) == shown | {"new": False}
        assert alerts(stack, "add", postbox)["kind"] == "mail"
        before = alerts(stack, "list")
        assert [one["number"] for one in before] == [1, 2]

        # `coinml up` applies the deployments; the addresses stay, and none is there twice.
        stack.coinml("deploy")
        assert alerts(stack, "list") == before

        assert [one["outcome"] for one in alerts(stack, "test")] == ["sent", "sent"]
        ((path, got),) = hook.got
        assert path == f"/{HOOK_SECRET}?key={HOOK_SECRET}"
        assert (got["event"], got["title"]) == ("coinml.test", "coinml: test")
        (message,) = mail.got
        assert "Subject: coinml: test" in message
        assert "A test of coinml's alerts" in message

        event = {
            "occurred": datetime.now(UTC).isoformat(),
            "id": str(uuid4()),
            "event": "coinml.champion",
            "resource": {"prefect.resource.id": "coinml.model.toy-task"},
            "payload": {"title": 'the "best" <one>', "text": "ä: {{ event }}", "version": 7},
        }
        stack.ask("events", [event])
        wait_for(lambda: len(hook.got) == len(mail.got) == 2, 60, "the alert to arrive")
        assert hook.got[1][1] == {
            "event": "coinml.champion",
            "title": 'the "best" <one>',
            "text": "ä: {{ event }}",
            "details": event["payload"],
        }

        # So does every other alert.
        others = [name for name in ALERTS if name != "coinml.champion"]
        for name in others:
            stack.ask("events", [{**event, "id": str(uuid4()), "event": name}])
        wait_for(
            lambda: len(hook.got) == len(mail.got) == 2 + len(others), 60, "the others to arrive"
        )
        assert {got["event"] for _, got in hook.got[2:]} == set(others)

        # An address that refuses is named, and `remove` ends it.
        hook.status = 403
        assert alerts(stack, "test", says="HTTP 403") == 1
        assert alerts(stack, "remove", "7", says="numbers: 1, 2") == 2
        assert alerts(stack, "remove", address) == shown
        assert [one["number"] for one in alerts(stack, "list")] == [2]
        told = len(hook.got)
        assert [one["outcome"] for one in alerts(stack, "test")] == ["sent"]
        assert len(hook.got) == told
        _fail_twice_and_recover(stack, mail, make_video)
    # Nobody answers any more.
    assert alerts(stack, "test", says="Notification failed") == 1
    for file in stack.home.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert HOOK_SECRET.encode() not in content, file
            assert MAIL_SECRET.encode() not in content, file
