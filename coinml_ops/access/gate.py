"""ASGI apps in front of a server: the check of the password, and signing in a browser."""

from __future__ import annotations

import html
import json
import secrets
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from coinml.runtime.addresses import parts_of
from coinml_ops.access.password import USER, auth_string, authorization

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

SIGN_IN = "/coinml/sign-in"
"""Path to which the page that `coinml ui` opens sends the password."""

_MLFLOW_AT_FIRST = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    # The server sends no usage data; its pages have a setting and a notice of their own.
    "mlflow.settings.telemetry.enabled_v1": "false",
    "mlflow.telemetry.info.alert.dismissed_v1": "true",
}
"""Items of the browser's storage, as JSON, that the pages of MLflow 3.17 read."""

MAX_FORM_BYTES = 4096
PRIVATE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


class PasswordOnly:
    """Refuses requests without the password with 401; an app behind it needs no users.

    Args:
        app: The server's.
        password: Of the user `coinml`, by HTTP's Basic authentication.
        open_paths: Paths that everybody may GET, since they tell nothing.
    """

    def __init__(self, app: ASGIApp, password: str, *, open_paths: Collection[str]) -> None:
        self.app = app
        self._expected = authorization(password).encode()
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or hand the request on."""
        if scope["type"] in ("http", "websocket") and not self._may_pass(scope):
            from starlette.responses import PlainTextResponse

            refusal = PlainTextResponse(
                "This server needs the password of its COINML_HOME: see `coinml ui`\n",
                status_code=401,
                headers={"WWW-Authenticate": 'Basic realm="coinml", charset="UTF-8"'},
            )
            await refusal(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        if (
            scope["type"] == "http"
            and scope["method"] == "GET"
            and scope["path"] in self._open_paths
        ):
            return True
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(sent) == 1 and secrets.compare_digest(sent[0], self._expected)


class OwnPagesOnly:
    """Refuses requests from other sites' pages, to which a browser may add the password.

    Args:
        app: The server's.
        places: Its own host names with the port; the request's Host header is one, too.
    """

    def __init__(self, app: ASGIApp, places: Collection[str] = ()) -> None:
        self.app = app
        self.places = frozenset(place.lower() for place in places)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403, or hand the request on."""
        if scope["type"] in ("http", "websocket") and not self._is_own(scope):
            from starlette.responses import PlainTextResponse

            await PlainTextResponse("Foreign origin", status_code=403)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _is_own(self, scope: Scope) -> bool:
        from starlette.datastructures import Headers

        headers = Headers(scope=scope)
        # Programs send no Origin; browsers do for every request that could do harm.
        origin = headers.get("origin")
        if origin is None:
            return True
        return parts_of(origin).netloc.lower() in {*self.places, headers.get("host", "").lower()}


class SignIn:
    """Signs in a browser that posts the password, so that the server's pages can be used.

    Not by a cookie: a browser sends a host's cookies to all of its ports, and so to a server of
    another user of the machine. What `remember_in_mlflow` and `remember_in_prefect` use belongs to
    one port.

    Args:
        app: The server's.
        password: The expected one.
        remember: Makes the script with which the browser keeps the password for this server.
    """

    def __init__(self, app: ASGIApp, password: str, *, remember: Callable[[str], str]) -> None:
        self.app = app
        self._password = password
        self._remember = remember

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request to sign in, or hand the request on."""
        if scope["type"] != "http" or scope["path"] != SIGN_IN:
            await self.app(scope, receive, send)
            return
        from starlette import requests
        from starlette.responses import HTMLResponse, PlainTextResponse

        request = requests.Request(scope, receive)
        sent = await _form(request) if request.method == "POST" else {}
        if secrets.compare_digest(sent.get("password", "").encode(), self._password.encode()):
            page = f"<!doctype html><script>{self._remember(self._password)}</script>"
            await HTMLResponse(page, headers=PRIVATE)(scope, receive, send)
        else:
            refusal = PlainTextResponse("Wrong password: run `coinml ui` again\n", status_code=401)
            await refusal(scope, receive, send)


def guarded(app: ASGIApp, hosts: Sequence[str], *, port: int) -> ASGIApp:
    """An app that refuses requests with a foreign Host or Origin header.

    Prefect checks neither. Without the first check, a page whose host name resolves to 127.0.0.1
    (DNS rebinding) could read and start everything. Without the second, any page could open the
    events' web socket, to which the browser's same-origin rule does not apply.
    """
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    own = OwnPagesOnly(app, [f"{f'[{name}]' if ':' in name else name}:{port}" for name in hosts])
    return TrustedHostMiddleware(own, allowed_hosts=hosts, www_redirect=False)


def remember_in_mlflow(password: str) -> str:
    """A script that makes a browser send the password with each request to this server.

    Where nobody has chosen otherwise, MLflow's pages then begin with model training and send no
    usage data. By default, they begin with traces and prompts, and their assistant opens itself
    over a quarter of the page; all of this is kept in the browser alone.
    """
    return (
        f"for (const [key, value] of Object.entries({json.dumps(_MLFLOW_AT_FIRST)}))"
        "if (localStorage.getItem(key) === null) localStorage.setItem(key, value);"
        "const check = new XMLHttpRequest();"
        f"check.open('GET', '/version', true, {json.dumps(USER)}, {json.dumps(password)});"
        "check.onloadend = () => location.replace('/');"
        "check.send();"
    )


def remember_in_prefect(password: str) -> str:
    """A script that stores the password where Prefect's pages look for it."""
    return (
        f"localStorage.setItem('prefect-password', btoa({json.dumps(auth_string(password))}));"
        "location.replace('/');"
    )


def sign_in_page(server: str, password: str) -> str:
    """A page that posts the password to a server; it belongs in a file of its reader's own.

    Args:
        server: The server's address.
        password: The home's.
    """
    return (
        "<!doctype html><meta charset=utf-8><title>coinml</title>"
        f'<form method=post action="{html.escape(server + SIGN_IN)}">'
        f'<input type=hidden name=password value="{html.escape(password)}">'
        "<noscript><button>Sign in</button></noscript></form>"
        "<script>document.forms[0].submit()</script>\n"
    )


async def _form(request: Request) -> dict[str, str]:
    """The fields of a small form; none if the body is too long."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            return {}
    return {name: values[-1] for name, values in parse_qs(body.decode("latin-1")).items()}
