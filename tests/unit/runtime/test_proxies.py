"""Requests to this machine go around the proxy that the environment names, in every client."""

from __future__ import annotations

import os
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
import requests
from websockets.proxy import get_proxy
from websockets.uri import parse_uri
from yt_dlp.utils.networking import select_proxy

from coinml.errors import InvalidInputError
from coinml.runtime.proxies import (
    VARIABLES,
    check_proxies,
    keep_loopback_direct,
    loopback_direct,
    shown_proxy,
)

NOBODY = "http://127.0.0.1:9"
"""A proxy that refuses connections."""


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


class _IPv6Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6


@pytest.fixture(scope="module")
def addresses() -> Iterator[list[str]]:
    """URLs of two servers of this machine, by name, IPv4 and IPv6 address."""
    servers = [
        ThreadingHTTPServer(("127.0.0.1", 0), _Answer),
        _IPv6Server(("::1", 0), _Answer),
    ]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    four, six = (server.server_port for server in servers)
    yield [f"http://127.0.0.1:{four}/", f"http://localhost:{four}/", f"http://[::1]:{six}/"]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "no_proxy", "NO_PROXY"):
        # Set first, so that the end of the test also removes what `keep_loopback_direct` sets.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def _by_httpx(url: str) -> bool:
    return httpx.get(url, timeout=5).text == "ok"


def _by_requests(url: str) -> bool:
    return requests.get(url, timeout=5).text == "ok"


def _by_websockets(url: str) -> bool:
    return get_proxy(parse_uri(url.replace("http:", "ws:"))) is None


def _by_ytdlp(url: str) -> bool:
    return select_proxy(url, urllib.request.getproxies()) is None


CLIENTS: tuple[Callable[[str], bool], ...] = (_by_httpx, _by_requests, _by_websockets, _by_ytdlp)

NO_PROXY = (
    None,
    "",
    "*",
    " * ",
    "*,corp.example",
    "corp.example,.other.example",
    "*.corp.example, http://there.example:8080",
    "corp.example:8080",
    "10.0.0.0/8,127.0.0.0/8",
    "[::1]",
    "[::1]:5000,[fe80::1]",
    "::1/128,fe80::/10",
    "corp.example 127.0.0.1 ::1",
    ":,https://,a:b:c",
)


@pytest.mark.parametrize("given", NO_PROXY)
@pytest.mark.parametrize("name", VARIABLES)
def test_every_client_reaches_this_machine(
    name: str, given: str | None, addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, NOBODY)
    if given is not None:
        monkeypatch.setenv("NO_PROXY", given)
    keep_loopback_direct()
    reached = [(client.__name__, url, client(url)) for client in CLIENTS for url in addresses]
    assert len(reached) == 12
    assert [(client, url) for client, url, ok in reached if not ok] == []


def test_without_the_variables_the_proxy_is_asked(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", NOBODY)
    with pytest.raises(httpx.ConnectError):
        httpx.get(addresses[0], timeout=5)
    with pytest.raises(requests.exceptions.ProxyError):
        requests.get(addresses[0], timeout=5)


def test_other_hosts_go_through_the_proxy_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", NOBODY)
    monkeypatch.setenv("no_proxy", "[::1], corp.example,10.0.0.0/8,fe80::/10")
    keep_loopback_direct("192.0.2.7")
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"]
    assert os.environ["no_proxy"] == ("::1,corp.example,10.0.0.0/8,localhost,127.0.0.1,192.0.2.7")
    proxies = urllib.request.getproxies()
    assert select_proxy("http://corp.example/x", proxies) is None
    assert select_proxy("http://192.0.2.7/x", proxies) is None
    assert select_proxy("http://elsewhere.example/x", proxies) == NOBODY


@pytest.mark.parametrize("name", ["all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_socks_proxy_does_not_keep_clients_from_this_machine(
    name: str, scheme: str, addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, f"{scheme}://127.0.0.1:9")
    keep_loopback_direct()
    check_proxies()
    assert all(client(url) for client in CLIENTS for url in addresses)


def test_nothing_is_set_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loopback_direct() == {}
    # An empty lower-case variable switches the upper-case one off.
    monkeypatch.setenv("HTTP_PROXY", NOBODY)
    monkeypatch.setenv("http_proxy", "")
    assert loopback_direct() == {}


@pytest.mark.parametrize(
    "value",
    [
        "socks4://joe:s3cret@proxy.example:1080",
        "weird://joe:s3cret@proxy.example",
        "joe:s3cret@proxy.example:notaport",
        " http://joe:s3cret@proxy.example:1",
        "http://joe:s3cret@",
        "http://joe:s3cret@proxy.example:99999",
    ],
)
def test_a_proxy_that_httpx_refuses_is_named_without_its_password(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(InvalidInputError, match="ALL_PROXY: not an address like") as caught:
        check_proxies()
    assert "s3cret" not in str(caught.value)


def test_credentials_are_masked() -> None:
    assert shown_proxy("http://joe:s3cret@proxy.example:3128/") == "http://***@proxy.example:3128"
    assert shown_proxy("token@proxy.example") == "http://***@proxy.example"
    assert shown_proxy("socks5h://[2001:db8::1]:1080") == "socks5h://[2001:db8::1]:1080"
