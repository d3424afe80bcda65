"""Checks what downloads need: yt-dlp, a JavaScript runtime, PO tokens, cookies, a proxy."""

from __future__ import annotations

import re
import shutil
import sys
from datetime import UTC, date, datetime
from pathlib import Path

from coinml.errors import InvalidInputError
from coinml.runtime.proxies import (
    check_proxies,
    loopback_direct,
    named_proxies,
    shown_proxy,
)
from coinml.runtime.settings import Settings
from coinml_ops.doctor.finding import Finding, installed

YTDLP_STALE_DAYS = 60
"""YouTube changes often; yt-dlp's maintainers release about every month."""


def check_ytdlp() -> Finding:
    """Whether yt-dlp is recent; YouTube soon refuses an old one."""
    version = installed("yt-dlp")
    upgrade = "pip install --upgrade 'yt-dlp[default,deno]'"
    if version is None:
        return Finding(subject="yt-dlp", state="failed", text="missing", remedy=upgrade)
    numbers = re.match(r"(\d{4})\.(\d{1,2})\.(\d{1,2})", version)
    if numbers is None:
        return Finding(subject="yt-dlp", state="warning", text=f"{version}, of unknown age")
    age_days = (datetime.now(UTC).date() - date(*map(int, numbers.groups()))).days
    text = f"{version}, {age_days} days old"
    if age_days > YTDLP_STALE_DAYS:
        return Finding(
            subject="yt-dlp",
            state="warning",
            text=text,
            remedy=f"YouTube may refuse it; upgrade it alone: {upgrade}",
        )
    return Finding(subject="yt-dlp", state="ok", text=text)


def check_javascript() -> Finding:
    """Whether yt-dlp finds a JavaScript runtime for YouTube's player."""
    # The deno package installs its binary beside the interpreter, which may not be on the PATH.
    beside = Path(sys.executable).parent
    deno = shutil.which("deno") or shutil.which("deno", path=str(beside))
    if deno:
        return Finding(subject="javascript", state="ok", text=f"deno at {deno}")
    return Finding(
        subject="javascript",
        state="warning",
        text="no runtime for YouTube's player",
        remedy="pip install 'yt-dlp[default,deno]'",
    )


def check_po_tokens(settings: Settings) -> Finding:
    """What yt-dlp has for YouTube's PO tokens: arguments, by key alone, a provider, JavaScript."""
    from coinml.collection.downloader_plugins import javascript_runtimes, pot_providers
    from coinml.collection.extractor_arguments import parse_extractor_args

    try:
        arguments = parse_extractor_args(settings.ytdlp_extractor_args or "")
    except InvalidInputError as err:
        return Finding(
            subject="po-tokens",
            state="failed",
            text=str(err),
            remedy="write COINML_YTDLP_EXTRACTOR_ARGS as for yt-dlp's --extractor-args",
        )
    keys = "; ".join(f"{name}: {', '.join(given)}" for name, given in arguments.items())
    providers = ", ".join(pot_providers())
    bgutil = installed("bgutil-ytdlp-pot-provider")
    if bgutil is not None:
        providers = f"{providers or 'not loaded'} (bgutil-ytdlp-pot-provider {bgutil})"
    parts = (
        f"arguments set: {keys or 'none (COINML_YTDLP_EXTRACTOR_ARGS)'}",
        f"provider: {providers or 'none installed'}",
        f"JavaScript for yt-dlp: {', '.join(javascript_runtimes()) or 'none'}",
    )
    return Finding(subject="po-tokens", state="ok", text="; ".join(parts))


def check_cookies(settings: Settings) -> Finding:
    """Whether the cookies file is valid, and unreadable for other users."""
    from coinml.collection.download import FetchOptions

    path = settings.cookies
    if path is None:
        return Finding(subject="cookies", state="ok", text="none set (COINML_COOKIES)")
    try:
        FetchOptions(cookies=path).credentials()
    except InvalidInputError as err:
        return Finding(
            subject="cookies",
            state="failed",
            text=str(err),
            remedy="point COINML_COOKIES at a Netscape cookies file",
        )
    if path.stat().st_mode & 0o077:
        return Finding(
            subject="cookies",
            state="warning",
            text=f"{path} can be read by other users",
            remedy=f"chmod 600 {path}",
        )
    return Finding(subject="cookies", state="ok", text=f"{path}")


def check_proxy(settings: Settings) -> Finding:
    """Whether the proxy's URL is valid. The URL is not shown: it may hold a password."""
    from coinml.collection.download import FetchOptions

    if settings.proxy is None:
        return Finding(subject="proxy", state="ok", text="none set (COINML_PROXY)")
    try:
        FetchOptions(proxy=settings.proxy).credentials()
    except InvalidInputError as err:
        return Finding(subject="proxy", state="failed", text=str(err))
    return Finding(subject="proxy", state="ok", text="set, and not shown")


def check_http_proxy() -> Finding:
    """Which proxy the environment names, and what goes around it; credentials are masked."""
    named = ", ".join(
        f"{name}={shown_proxy(value) or '(not usable)'}" for name, value in named_proxies().items()
    )
    around = loopback_direct()["no_proxy"].replace(",", ", ")
    text = f"{named}; not used for {'anything (NO_PROXY=*)' if around == '*' else around}"
    try:
        check_proxies()
    except InvalidInputError as err:
        return Finding(subject="http proxy", state="failed", text=text, remedy=str(err))
    return Finding(subject="http proxy", state="ok", text=text)
