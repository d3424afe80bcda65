from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from coinml.errors import InvalidInputError
from coinml.miniature.fault_plan import ANSWERS, FaultPlan
from coinml.miniature.host import FlakyHost

BODY = bytes(range(256)) * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("-abcdefghij", "other"):
        (tmp_path / f"{name}.mp4").write_bytes(BODY)
    return tmp_path


def ask(host: FlakyHost, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=5)
    connection.request("GET", path, headers=headers or {})
    answer = connection.getresponse()
    try:
        return answer.status, answer.read()
    finally:
        connection.close()


def test_files_and_ranges_are_served_and_counted(folder: Path) -> None:
    with FlakyHost(folder) as host:
        assert ask(host, "/-abcdefghij.mp4") == (200, BODY)
        assert ask(host, "/-abcdefghij.mp4", {"Range": "bytes=10000-"}) == (206, BODY[10000:])
        assert ask(host, "/-abcdefghij.mp4", {"Range": "bytes=20000-"})[0] == 416
        assert ask(host, "/nobody.mp4")[0] == 404
        assert json.loads(ask(host, "/_log")[1]) == {"-abcdefghij": 3, "nobody": 1}
        assert host.log() == {"-abcdefghij": 3, "nobody": 1}


@pytest.mark.parametrize("path", ["/../secret.mp4", "/%2e%2e%2fsecret.mp4", "/a/b.mp4", "/"])
def test_nothing_outside_the_folder_is_served(folder: Path, path: str) -> None:
    (folder.parent / "secret.mp4").write_bytes(b"secret")
    with FlakyHost(folder) as host:
        assert ask(host, path)[0] == 404


def test_answers_follow_the_plan_and_the_last_one_repeats(folder: Path) -> None:
    with FlakyHost(folder, {"videos": {"other": ["503", "410", "ok", "404"]}}) as host:
        answers = [ask(host, "/other.mp4")[0] for _ in range(5)]
    assert answers == [503, 410, 200, 404, 404]


@pytest.mark.parametrize("answer", ["403", "404", "410", "429", "500", "503"])
def test_refusals_have_their_status(folder: Path, answer: str) -> None:
    with FlakyHost(folder, {"videos": {"other": [answer]}}) as host:
        assert ask(host, "/other.mp4")[0] == int(answer)


def test_a_reset_comes_in_the_middle_of_the_body(folder: Path) -> None:
    got = bytearray()

    def receive(raw: socket.socket) -> None:
        while chunk := raw.recv(65536):
            got.extend(chunk)

    with (
        FlakyHost(folder, {"videos": {"other": ["reset"]}}) as host,
        socket.create_connection(("127.0.0.1", host.port), timeout=5) as raw,
    ):
        raw.sendall(b"GET /other.mp4 HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            receive(raw)
    assert b"Content-Length: 10240" in got
    assert 0 < len(got.partition(b"\r\n\r\n")[2]) < len(BODY)


def test_short_sends_half_of_the_announced_length(folder: Path) -> None:
    with (
        FlakyHost(folder, {"videos": {"other": ["short"]}}) as host,
        pytest.raises(http.client.IncompleteRead) as caught,
    ):
        ask(host, "/other.mp4")
    assert len(caught.value.partial) == len(BODY) // 2


def test_a_stall_keeps_the_connection_open(folder: Path) -> None:
    with FlakyHost(folder, {"videos": {"other": ["stall"]}, "stall_s": 30}) as host:
        connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=0.3)
        connection.request("GET", "/other.mp4")
        with pytest.raises(TimeoutError):
            connection.getresponse().read()
        connection.close()


def test_slow_html_and_empty(folder: Path) -> None:
    plan = {"videos": {"other": ["slow", "html", "empty"]}, "slow_s": 0.4}
    with FlakyHost(folder, plan) as host:
        start = time.monotonic()
        assert ask(host, "/other.mp4") == (200, BODY)
        assert time.monotonic() - start > 0.3
        assert ask(host, "/other.mp4")[1].startswith(b"<!DOCTYPE html>")
        assert ask(host, "/other.mp4") == (200, b"")


def test_refusals_by_the_source_use_no_answers_of_a_video(folder: Path) -> None:
    plan = {
        "videos": {"other": ["503", "ok"]},
        "source": [{"after_requests": 1, "answer": "429", "retry_after_s": 2, "times": 2}],
    }
    with FlakyHost(folder, plan) as host:
        answers = [ask(host, "/other.mp4")[0] for _ in range(4)]
        assert answers == [503, 429, 429, 200]
        assert host.log() == {"other": 2}
        assert [answer for _, answer in host.requests()] == [
            "503",
            "source 429",
            "source 429",
            "ok",
        ]
        connection = urllib.request.urlopen(host.url + "/_log/full")
        assert len(json.loads(connection.read())) == 4


def test_the_source_sends_retry_after(folder: Path) -> None:
    plan = {"source": [{"after_requests": 0, "retry_after_s": 2, "for_s": 0.3}]}
    with FlakyHost(folder, plan) as host:
        connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=5)
        connection.request("GET", "/other.mp4")
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Retry-After")) == (429, "2")
        connection.close()
        time.sleep(0.4)
        assert ask(host, "/other.mp4")[0] == 200


@pytest.mark.parametrize(
    ("plan", "word"),
    [
        ({"videos": {"x": ["sometimes"]}}, "sometimes"),
        ({"videos": {"x": []}}, "x"),
        ({"video": {}}, "video"),
        ({"source": [{"after": 3}]}, "after"),
        ({"source": [{"after_requests": 3, "answer": "ok"}]}, "ok"),
    ],
)
def test_an_invalid_plan_is_refused_with_the_reason(plan: dict[str, object], word: str) -> None:
    with pytest.raises(InvalidInputError, match=word):
        FaultPlan.from_dict(plan)


def test_the_answers_are_stable() -> None:
    contract = "ok 403 404 410 429 500 503 reset short stall slow html empty"
    assert contract.split() == list(ANSWERS)


@pytest.fixture
def process(folder: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"videos": {"other": ["404"]}}))
    started = subprocess.Popen(
        [sys.executable, "-m", "coinml.miniature.host", str(folder), "--plan", str(plan)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stderr is not None
    yield started, started.stderr.readline()
    if started.poll() is None:
        started.kill()
    started.wait()
    started.stderr.close()


def test_it_runs_as_a_command(process: tuple[subprocess.Popen[str], str]) -> None:
    started, line = process
    template = line.rpartition(" ")[2].strip()
    with urllib.request.urlopen(template.replace("{id}", "-abcdefghij")) as answer:
        assert answer.read() == BODY
    started.terminate()
    assert started.wait(timeout=5) == 0


def test_the_command_refuses_a_missing_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coinml.miniature.host", str(tmp_path / "nowhere")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "nowhere" in done.stderr
