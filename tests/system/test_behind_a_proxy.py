"""`coinml` on a machine whose environment names a proxy for everybody, and no NO_PROXY."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coinml.miniature.host import FlakyHost
from coinml.runtime.proxies import VARIABLES
from tests.helpers.small_coin_datasets import write_drawn_coin

pytestmark = pytest.mark.stack

COMMAND = str(Path(sys.executable).parent / "coinml")


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that answers nothing, and the first line of each request that it was sent."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(1000).partition(b"\r\n")[0])

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://ann:hush@127.0.0.1:{server.getsockname()[1]}", asked
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("names", [("HTTP_PROXY", "http_proxy"), ("all_proxy", "HTTPS_PROXY")])
def test_servers_and_sources_of_this_machine_are_not_asked_through_it(
    names: tuple[str, ...],
    tmp_path: Path,
    proxy: tuple[str, list[bytes]],
    make_video: Callable[..., Path],
) -> None:
    url, asked = proxy
    dropped = ("COINML", "PREFECT", "MLFLOW", "NO_PROXY", "no_proxy", *VARIABLES)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(dropped)},
        "COINML_HOME": str(tmp_path / "home"),
        **dict.fromkeys(names, url),
    }
    coin = write_drawn_coin(tmp_path / "coin", 6, make_video)

    def coinml(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=160,
        )

    with FlakyHost(coin.parent / "videos") as host:
        done = coinml("collect", "--dataset", str(coin), "--source", host.source, "--json")
        assert done.returncode == 0, done.stderr
        assert sum(host.log().values()) >= 6
    assert asked == []
    findings = json.loads(coinml("doctor", "--json").stdout)
    (found,) = [one for one in findings if one["subject"] == "http proxy"]
    assert "localhost, 127.0.0.1, ::1" in found["text"]
    assert "hush" not in json.dumps(findings) + done.stderr
