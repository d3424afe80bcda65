"""A server's answer can be lost after the server has done what was asked; the client asks again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.client.base import PrefectHttpxSyncClient
from pydantic import BaseModel

from tasks import outcomes
from tasks.outcomes import completed


class Counted(BaseModel):
    videos: int


@flow(name="counting")
def counting() -> Counted:
    return completed(Counted(videos=3), message="3 videos")


@flow(name="outer")
def outer() -> Counted:
    inner = counting()
    return completed(Counted(videos=inner.videos + 1), message="4 videos")


def test_a_flow_has_its_result_although_the_answers_to_its_states_are_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send, lost = PrefectHttpxSyncClient.send, []

    # The real client and server; only the first answer to each state is thrown away, as by a
    # connection that breaks at that moment.
    def send_again(
        client: PrefectHttpxSyncClient, request: httpx.Request, *args: Any, **kwargs: Any
    ) -> httpx.Response:
        if request.url.path.endswith("/set_state"):
            lost.append(send(client, request, *args, **kwargs).json()["status"])
        return send(client, request, *args, **kwargs)

    monkeypatch.setattr(PrefectHttpxSyncClient, "send", send_again)
    assert outer() == Counted(videos=4)
    assert lost == ["ACCEPT"] * 4
    assert counting(return_state=True).message == "3 videos"


def test_a_flow_ends_with_its_result_although_no_record_can_be_stored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(outcomes, "_folder", lambda: str(tmp_path / "file" / "folder"))
    assert outer() == Counted(videos=4)
    assert counting(return_state=True).message == "3 videos"
