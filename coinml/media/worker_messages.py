"""Messages between a pool and its workers: JSON with at most one file descriptor."""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("!I")


def send(connection: socket.socket, message: dict[str, Any], descriptor: int | None = None) -> None:
    """Send a message, with a copy of an open file descriptor if given."""
    body = json.dumps(message).encode()
    rights: list[tuple[int, int, bytes]] = []
    if descriptor is not None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]).tobytes())]
    # The descriptor travels with the length, which is small enough to be sent in one piece.
    connection.sendmsg([_LENGTH.pack(len(body))], rights)
    connection.sendall(body)


def receive(connection: socket.socket) -> tuple[dict[str, Any], int | None]:
    """Wait for a message; the caller closes the descriptor, if there is one.

    Raises:
        EOFError: The other side closed the connection.
        TimeoutError: The socket's timeout expired.
    """
    space = socket.CMSG_LEN(array.array("i").itemsize)
    head, rights, _, _ = connection.recvmsg(_LENGTH.size, space)
    descriptor: int | None = None
    for _, _, data in rights:
        (descriptor,) = array.array("i", data[: array.array("i").itemsize])
    try:
        head += _exactly(connection, _LENGTH.size - len(head))
        body = _exactly(connection, _LENGTH.unpack(head)[0])
    except BaseException:
        if descriptor is not None:
            os.close(descriptor)
        raise
    return json.loads(body), descriptor


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(min(count - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
