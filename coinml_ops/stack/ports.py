"""Free ports, and the processes that hold the others."""

from __future__ import annotations

import socket

from coinml.errors import InvalidInputError


def choose(host: str, wanted: int | None, default: int, *, option: str) -> int:
    """A port to bind to: the requested one, else the default, else any free port.

    Raises:
        InvalidInputError: The requested port is in use; names the process that holds it.
    """
    if wanted is not None:
        if not is_free(host, wanted):
            raise InvalidInputError(f"{option} {wanted}: that port is in use{holder(wanted)}")
        return wanted
    return default if is_free(host, default) else _any(host)


def is_free(host: str, port: int) -> bool:
    """Whether a server could bind to a port."""
    with _socket(host) as probe:
        # As servers do: connections in TIME_WAIT do not hold a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def holder(port: int) -> str:
    """` by process 123 (name)`; "" where this user may not see it."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and connection.pid and getattr(connection.laddr, "port", None) == port:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        return ""
    return ""


def _any(host: str) -> int:
    with _socket(host) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
