"""Is this machine fit for the work? One finding a subject, with what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

from coinml.errors import CoinmlError
from coinml.settings import Settings

YTDLP_STALE_DAYS = 60
"""YouTube changes often; yt-dlp's maintainers release about every month."""

DISK_LOW_GIB = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found of one subject.

    Attributes:
        subject: What was looked at.
        state: "failed" keeps coinml from working, "warning" takes something away.
        text: What was found.
        remedy: What to do, or "".
    """

    subject: str
    state: Literal["ok", "warning", "failed"]
    text: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def examine(settings: Settings) -> list[Finding]:
    """Look at everything; a subject that cannot be examined is a finding, too."""
    checks: list[Callable[[Settings], Finding]] = [
        _python, _torch, _decoders, _ytdlp, _javascript, _cookies, _disk, _ledger, _mlflow
    ]  # fmt: skip
    findings = []
    for check in checks:
        try:
            findings.append(check(settings))
        except Exception as err:
            subject = check.__name__.removeprefix("_")
            findings.append(Finding(subject=subject, state="failed", text=f"{err}"))
    return findings


def _python(_settings: Settings) -> Finding:
    text = f"{platform.python_version()} on {platform.machine()}"
    return Finding(subject="python", state="ok", text=text)


def _torch(settings: Settings) -> Finding:
    import torch

    cuda = torch.cuda.is_available()
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    text = f"{torch.__version__}, " + (", ".join(names) if cuda else "no CUDA device")
    if settings.device.startswith("cuda") and not cuda:
        return Finding(
            subject="torch", state="failed", text=f"{text}, but COINML_DEVICE={settings.device}",
            remedy="install a CUDA build of torch, or set COINML_DEVICE=cpu",
        )  # fmt: skip
    remedy = "" if cuda else "embedding runs on the CPU: fine for small sets, days for COIN"
    return Finding(subject="torch", state="ok" if cuda else "warning", text=text, remedy=remedy)


def _decoders(_settings: Settings) -> Finding:
    from coinml.media import decoders_here

    # Each is loaded: torchcodec can be installed and still not find FFmpeg's libraries.
    found = decoders_here()
    text = ", ".join(what if name in what else f"{name} {what}" for name, what in found.items())
    if found["pyav"].startswith("pyav"):
        return Finding(subject="decoders", state="failed", text=text, remedy="pip install av")
    return Finding(subject="decoders", state="ok", text=text)


def _ytdlp(_settings: Settings) -> Finding:
    version = _version("yt-dlp")
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
            subject="yt-dlp", state="warning", text=text,
            remedy=f"YouTube may refuse it; upgrade it alone: {upgrade}",
        )  # fmt: skip
    return Finding(subject="yt-dlp", state="ok", text=text)


def _javascript(_settings: Settings) -> Finding:
    # The deno package puts its binary beside the interpreter, which need not be on the PATH.
    beside = Path(sys.executable).parent
    deno = shutil.which("deno") or shutil.which("deno", path=str(beside))
    if deno:
        return Finding(subject="javascript", state="ok", text=f"deno at {deno}")
    return Finding(
        subject="javascript", state="warning", text="no runtime for YouTube's player",
        remedy="pip install 'yt-dlp[default,deno]'",
    )  # fmt: skip


def _cookies(settings: Settings) -> Finding:
    if settings.cookies is None:
        return Finding(subject="cookies", state="ok", text="none set (COINML_COOKIES)")
    if not os.access(settings.cookies, os.R_OK):
        return Finding(
            subject="cookies", state="failed", text=f"{settings.cookies} cannot be read",
            remedy="point COINML_COOKIES at a Netscape cookies file",
        )  # fmt: skip
    return Finding(subject="cookies", state="ok", text=f"{settings.cookies}")


def _disk(settings: Settings) -> Finding:
    place = settings.data_dir
    while not place.exists():
        place = place.parent
    free_gib = shutil.disk_usage(place).free / 2**30
    text = f"{free_gib:.1f} GiB free for {settings.data_dir}"
    if not os.access(place, os.W_OK):
        return Finding(
            subject="disk", state="failed", text=f"{place} cannot be written",
            remedy="set COINML_HOME to a folder that can",
        )  # fmt: skip
    if free_gib < DISK_LOW_GIB:
        return Finding(
            subject="disk", state="warning", text=text,
            remedy="make room, or set COINML_HOME to a larger disk",
        )  # fmt: skip
    return Finding(subject="disk", state="ok", text=text)


def _ledger(settings: Settings) -> Finding:
    from coinml.ledger import Ledger

    path = settings.ledger_url.removeprefix("sqlite:///")
    if settings.ledger_url.startswith("sqlite") and not Path(path).exists():
        return Finding(subject="ledger", state="ok", text="not made yet (the first run makes it)")
    try:
        with Ledger(settings.ledger_url) as ledger:
            names = ledger.datasets()
    except CoinmlError as err:
        return Finding(subject="ledger", state="failed", text=str(err))
    return Finding(subject="ledger", state="ok", text=f"datasets: {', '.join(names) or 'none'}")


def _mlflow(settings: Settings) -> Finding:
    uri = settings.tracking_uri
    version = _version("mlflow")
    if not uri.startswith("sqlite:///"):
        return Finding(subject="mlflow", state="ok", text=f"{version}, store at a server")
    path = Path(uri.removeprefix("sqlite:///"))
    if not path.exists():
        return Finding(subject="mlflow", state="ok", text=f"{version}, no mlflow.db yet")
    found = _revision(path)
    expected = _expected_mlflow_revision()
    if found != expected:
        return Finding(
            subject="mlflow", state="failed",
            text=f"{path} is at migration {found}, mlflow {version} expects {expected}",
            remedy="use the mlflow version that wrote it, or back it up and run "
            f"`mlflow db upgrade {uri}`",
        )  # fmt: skip
    return Finding(subject="mlflow", state="ok", text=f"{version}, {path} at {found}")


def _revision(path: Path) -> str | None:
    # Read by hand: MLflow itself would migrate the file on sight.
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None


def _expected_mlflow_revision() -> str | None:
    from alembic.script import ScriptDirectory

    spec = importlib.util.find_spec("mlflow")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "store" / "db_migrations"
    return ScriptDirectory(str(folder)).get_current_head()


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
