"""Nobody but its own processes can use the Dask cluster of one machine."""

from __future__ import annotations

import http.client
import os

import psutil
import pytest
from distributed import Client
from distributed.security import Security

from coinml.embedding.dask_cluster import local_cluster

PATHS = ("/", "/health", "/metrics", "/json/counts.json", "/info/main/workers.html")


def listening() -> dict[int, psutil.Process]:
    """The process that listens, by port, of this process and its children."""
    me = psutil.Process()
    found = {}
    for process in (me, *me.children(recursive=True)):
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip == "127.0.0.1"
                found[connection.laddr.port] = process
    return found


def page(port: int, path: str) -> int | None:
    """The status that a page answers without a credential; None if it is not HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def test_strangers_reach_no_scheduler_worker_or_page() -> None:
    before = set(listening())
    with local_cluster(["cpu"]) as cluster:
        ports = {port: one for port, one in listening().items() if port not in before}
        # The scheduler and its pages here, the nanny here, the worker and its pages in a child.
        assert len(ports) == 5
        assert {one.pid for one in ports.values()} > {os.getpid()}
        assert cluster.workers == 1
        pages = {port for port in ports if {page(port, path) for path in PATHS} == {404}}
        assert len(pages) == 2
        for port in ports.keys() - pages:
            assert {page(port, path) for path in PATHS} == {None}
            for scheme, security in (("tcp", None), ("tls", Security.temporary())):
                with pytest.raises((OSError, TimeoutError)):
                    Client(
                        f"{scheme}://127.0.0.1:{port}",
                        security=security,
                        timeout=0.5,
                        set_as_default=False,
                    )
        for process in {*ports.values()}:
            assert not any("PRIVATE KEY" in word for word in process.cmdline())
