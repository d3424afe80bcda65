"""The findings of `coinml doctor`, which changes nothing."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from coinml.data.records import Dataset, Video
from coinml.encoder import kernels
from coinml.encoder.kernel_cache import KernelFigure, keep_figures
from coinml.ledger import Ledger
from coinml.ledger.schema import HEAD
from coinml.runtime.proxies import VARIABLES
from coinml.runtime.settings import Settings
from coinml_ops.doctor.databases import (
    check_ledger,
    check_mlflow_store,
    check_prefect_database,
)
from coinml_ops.doctor.examine import examine
from coinml_ops.doctor.machine import check_confinement, check_disk, check_kernels
from coinml_ops.doctor.source import check_cookies, check_po_tokens, check_proxy
from tests.helpers.findings import checked


def test_every_subject_has_a_finding_with_a_remedy(settings: Settings) -> None:
    findings = {finding.subject: finding for finding in examine(settings)}
    assert list(findings) == [
        "python",
        "torch",
        "kernels",
        "decoders",
        "confinement",
        "yt-dlp",
        "javascript",
        "po-tokens",
        "cookies",
        "proxy",
        "home",
        "disk",
        "access",
        "ledger",
        "mlflow",
        "prefect",
    ]
    for finding in findings.values():
        checked(finding)
    assert "start a local server" in findings["prefect"].text
    # The checks created no file.
    assert list(settings.home.iterdir()) == []


def test_the_doctor_says_how_encoders_are_computed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINML_HOME", str(settings.home))
    figures = (
        KernelFigure(name="torch-float32", clip_s=4.2, cosine=1.0),
        KernelFigure(name="openvino-float32", fault="No conversion rule found"),
    )
    keep_figures(["torch-float32", "openvino-float32"], figures, "0123456789ab")
    state, text = checked(check_kernels())
    assert state == "ok"
    assert text.startswith("torch-float32, torch-bfloat16, ")
    assert "encoder 0123456789ab: torch-float32 4.2 CPU s a clip (cosine 1.000000), " in text
    assert "openvino-float32: No conversion rule found" in text
    assert check_kernels().remedy == ""
    row = dataclasses.replace(kernels.KERNELS["openvino-float32"], is_available=lambda: False)
    monkeypatch.setattr(kernels, "KERNELS", {**kernels.KERNELS, row.name: row})
    assert check_kernels().remedy.endswith(": pip install 'coinml[openvino]'")


def test_the_doctor_says_what_confines_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    state, text = checked(check_confinement())
    if state == "ok":
        assert text.startswith("decoding processes reach neither files nor the network (")
        assert "Landlock" in text or "seccomp" in text
    # On a system without either.
    answer = '{"layers": [], "open_to": ["files", "network"]}'
    monkeypatch.setattr(
        "coinml_ops.doctor.machine.subprocess.run",
        lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=answer),
    )
    state, text = checked(check_confinement())
    assert (state, text) == ("warning", "decoding processes can reach files and network")


def test_a_check_that_raises_does_not_affect_the_others(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coinml_ops.doctor.examine.check_decoders", lambda: 1 / 0)
    findings = {finding.subject: finding for finding in examine(settings)}
    assert findings["decoders"].state == "failed"
    assert "ZeroDivisionError" in findings["decoders"].text
    assert findings["ledger"].state == "ok"


def test_cookies_that_others_can_read_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookies = tmp_path / "cookies.txt"
    monkeypatch.setenv("COINML_COOKIES", str(cookies))
    assert check_cookies(Settings()).state == "failed"
    cookies.write_text("# Netscape\n.youtube.com\tTRUE\t/\tTRUE\t0\tSID\ts3cr3t\n")
    cookies.chmod(0o644)
    state, text = checked(check_cookies(Settings()))
    assert (state, "other users" in text) == ("warning", True)
    cookies.chmod(0o600)
    assert checked(check_cookies(Settings()))[0] == "ok"
    cookies.write_text("SID=s3cr3t\n")
    state, text = checked(check_cookies(Settings()))
    assert (state, "s3cr3t" in text) == ("failed", False)


def test_the_proxy_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COINML_PROXY", "http://ann:hush-hush@10.0.0.1:3128")
    found = check_proxy(Settings())
    assert found.state == "ok"
    assert "10.0.0.1" not in found.text
    assert "hush" not in found.text
    assert "hush" not in repr(Settings())


PROVIDER = """
from yt_dlp.extractor.youtube.pot.provider import PoTokenProvider, register_provider

@register_provider
class DrawnPTP(PoTokenProvider):
    PROVIDER_NAME = "drawn"

    def is_available(self):
        return False

    def _real_request_pot(self, request):
        raise NotImplementedError
"""
SHOW = """
from coinml.runtime.settings import Settings
from coinml_ops.doctor.source import check_po_tokens
print(check_po_tokens(Settings()).as_dict(), Settings())
"""


def test_po_tokens_are_one_line_with_keys_and_without_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, text = checked(check_po_tokens(Settings()))
    assert state == "ok"
    assert "arguments set: none" in text
    assert "provider: none installed" in text
    assert "JavaScript for yt-dlp: deno" in text
    # A plugin that yt-dlp itself discovers, in another process: plugins stay loaded.
    folder = tmp_path / "yt_dlp_plugins" / "extractor"
    folder.mkdir(parents=True)
    (folder / "getpot_drawn.py").write_text(PROVIDER)
    given = "youtube:player_client=web;po_token=web.gvs+hush-hush-hush"
    done = subprocess.run(
        [sys.executable, "-c", SHOW],
        env=os.environ
        | {
            "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path.cwd()}",
            "COINML_YTDLP_EXTRACTOR_ARGS": given,
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "arguments set: youtube: player_client, po_token; provider: drawn;" in done.stdout
    assert "hush" not in done.stdout + done.stderr
    monkeypatch.setenv("COINML_YTDLP_EXTRACTOR_ARGS", "hush-hush-hush")
    state, text = checked(check_po_tokens(Settings()))
    assert (state, "hush" in text) == ("failed", False)


def test_free_space_is_compared_with_the_remaining_videos(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gib = 2**30
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100 * gib, 80 * gib, 20 * gib))
    assert checked(check_disk(settings))[0] == "ok"
    videos = tuple(
        Video(video_id=f"v{n}", label="A", subset="training", split="train") for n in range(5)
    )
    with Ledger(settings.ledger_url) as ledger:
        ledger.register(Dataset(name="coin", videos=videos))
        _downloaded(ledger, "v0", size=4 * gib)
    # Four more of 4 GiB.
    state, text = checked(check_disk(settings))
    assert (state, "16.0 GiB of videos still to come" in text) == ("warning", True)


def _downloaded(ledger: Ledger, video_id: str, *, size: int) -> None:
    with sqlite3.connect(ledger.database.path or "") as connection:
        connection.execute(
            "UPDATE videos SET state = 'downloaded', size_bytes = ? WHERE video_id = ?",
            (size, video_id),
        )


def test_a_ledger_at_another_migration_is_reported_and_unchanged(settings: Settings) -> None:
    assert "none yet" in check_ledger(settings).text
    with Ledger(settings.ledger_url) as ledger:
        ledger.register(Dataset(name="coin", videos=()))
    assert checked(check_ledger(settings)) == ("ok", f"at migration {HEAD}; datasets: none")
    for stored, state in (("0001", "warning"), ("9999", "failed")):
        path = settings.data_dir / "ledger.db"
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (stored,))
        found = checked(check_ledger(settings))
        assert (found[0], stored in found[1], HEAD in found[1]) == (state, True, True)
        with sqlite3.connect(path) as connection:
            assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (
                stored,
            )


def test_an_unreachable_ledger_is_reported_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for url in (
        "postgresql+psycopg://ann:hush-hush@127.0.0.1:9/coinml",
        "postgresql://ann:hush-hush@127.0.0.1:none/coinml",
        "hush-hush",
    ):
        monkeypatch.setenv("COINML_LEDGER_URL", url)
        state, text = checked(check_ledger(Settings()))
        assert (state, "hush" in text) == ("failed", False)


def test_an_mlflow_db_at_another_migration_is_reported_and_unchanged(
    settings: Settings, migrated_database: Path
) -> None:
    assert "no mlflow.db yet" in check_mlflow_store(settings).text
    path = settings.home / "mlflow.db"
    shutil.copyfile(migrated_database, path)
    assert checked(check_mlflow_store(settings))[0] == "ok"
    for stored, state in (("451aebb31d03", "warning"), ("of a newer one", "failed")):
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (stored,))
        before = path.read_bytes()
        found = checked(check_mlflow_store(settings))
        assert (found[0], stored in found[1]) == (state, True)
        assert path.read_bytes() == before
    assert [file.name for file in settings.home.iterdir()] == ["mlflow.db"]


def test_the_proxy_of_the_environment_is_named_without_its_password(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*VARIABLES, "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert "http proxy" not in {one.subject for one in examine(settings)}
    monkeypatch.setenv("HTTPS_PROXY", "http://ann:hush-hush@proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", ".corp.example")
    found = {one.subject: one for one in examine(settings)}["http proxy"]
    assert (found.state, found.text) == (
        "ok",
        "HTTPS_PROXY=http://***@proxy.example:3128; "
        "not used for .corp.example, localhost, 127.0.0.1, ::1",
    )
    monkeypatch.setenv("ALL_PROXY", "socks4://ann:hush-hush@proxy.example:1080")
    found = {one.subject: one for one in examine(settings)}["http proxy"]
    assert found.state == "failed"
    assert "ALL_PROXY=(not usable)" in found.text
    assert "socks5" in found.remedy
    assert "hush" not in found.text + found.remedy


def test_a_database_that_lost_its_content_is_reported_with_the_way_back(
    settings: Settings,
) -> None:
    prefect = settings.data_dir / "prefect" / "prefect.db"
    for path in (settings.data_dir / "ledger.db", settings.home / "mlflow.db", prefect):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for subject, found in {
        "ledger": check_ledger(settings),
        "mlflow": check_mlflow_store(settings),
        "prefect": check_prefect_database(prefect),
    }.items():
        assert (found.state, "is empty (0 bytes)" in found.text) == ("failed", True)
        assert f"coinml restore PLACE --only {subject}" in found.remedy
