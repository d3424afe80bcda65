"""The `coinml` command as a process: exit codes, stdout and stderr, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from coinml.faults.classification import Fault
from coinml.ledger import Attempt, Ledger
from coinml.miniature.host import FlakyHost
from coinml.selection import Selection
from tests.helpers.small_coin_datasets import write_drawn_coin

pytestmark = pytest.mark.stack

COMMAND = str(Path(sys.executable).parent / "coinml")


def environment(home: Path) -> dict[str, str]:
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("COINML", "PREFECT", "MLFLOW"))
    }
    return clean | {"COINML_HOME": str(home)}


def coinml(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment(home),
        timeout=280,
    )


@pytest.fixture(scope="module")
def coin(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("coin")
    write_drawn_coin(folder, 30, make_video)
    return folder


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["annotations", "nothing.json"], 2, "nothing.json: cannot be read"),
        (["annotations", "--limit", "0", "mini"], 2, "--limit"),
        (["status"], 2, "run `coinml collect` first"),
        (["status", "--dataset", "moon"], 2, "--dataset moon"),
        (["predict", "x.mp4", "--model", "models:/none/1"], 2, "models:/none/1"),
        (["collect", "--dataset", "folder:/nowhere"], 2, "/nowhere: no such folder"),
        (["promote", "--dataset", "moon"], 2, "--dataset moon"),
        (["promote", "--version", "1", "--because", " "], 2, "--because ' '"),
        (["promote", "--because", "it is better"], 2, "name it with --version, once"),
        (["promote", "--because", "it is better", "--rollback"], 2, "give one of them"),
        (["frobnicate"], 2, "frobnicate"),
        ([], 2, "Usage"),
    ],
)
def test_wrong_usage_gives_a_one_line_error_and_its_exit_code(
    tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    run = coinml(tmp_path, *arguments)
    assert run.returncode == code
    assert says in run.stderr.replace("\n", " ") + run.stdout
    assert "Traceback" not in run.stderr


def test_json_output_is_the_only_text_on_stdout(tmp_path: Path, coin: Path) -> None:
    run = coinml(tmp_path, "annotations", str(coin / "COIN.json"), "--json")
    assert run.returncode == 0
    assert json.loads(run.stdout)["videos"] == 30
    checked = coinml(
        tmp_path, "check", str(coin / "videos" / "video000000.mp4"), __file__, "--json"
    )
    assert checked.returncode == 0
    assert [row["verdict"] for row in json.loads(checked.stdout)] == ["ok", "unusable"]


def test_after_ctrl_c_the_next_call_continues(tmp_path: Path, coin: Path) -> None:
    ids = [f"video{number:06d}" for number in range(30)]
    plan = {"videos": {video_id: ["slow"] for video_id in ids}, "slow_s": 0.3}
    arguments = ["collect", "--dataset", str(coin / "COIN.json"), "--batch-size", "3", "--json"]
    with FlakyHost(coin / "videos", plan) as host:
        arguments += ["--source", host.source]
        process = subprocess.Popen(
            [COMMAND, *arguments], env=environment(tmp_path), stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 120
        while len(host.log()) < 8 and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=90)
        assert process.returncode == 130, stderr
        assert "the next call continues from here" in stderr
        assert "Traceback" not in stderr
        before = json.loads(coinml(tmp_path, "status", "--json").stdout)
        assert 0 < before["downloaded"] < 30
        second = coinml(tmp_path, *arguments)
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["downloaded"] == 30
    assert json.loads(second.stdout)["fetched"] == 30 - before["downloaded"]


def test_the_local_server_ends_with_the_command(tmp_path: Path, coin: Path) -> None:
    with FlakyHost(coin / "videos") as host:
        run = coinml(
            tmp_path,
            "collect",
            "--dataset",
            str(coin / "COIN.json"),
            "--source",
            host.source,
            "--budget",
            "2",
        )
    # Two of thirty: the rest is due later.
    assert run.returncode == 3, run.stderr
    ours = [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(tmp_path) in " ".join(process.info["cmdline"] or [])
    ]
    assert ours == []


def test_the_local_server_of_a_killed_command_ends_by_itself(tmp_path: Path, coin: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; "
        "from coinml_ops.prefect_server.local_server import LocalPrefect; "
        f"s = LocalPrefect(Path({str(tmp_path / 'prefect')!r})); api = s.start(); s.wait(api); "
        "print('up', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    record = json.loads((tmp_path / "prefect" / "server.json").read_text())
    assert psutil.pid_exists(record["pid"])
    process.kill()
    process.wait()
    psutil.Process(record["pid"]).wait(timeout=60)
    # The record is removed first, so that no command joins a server that is about to end.
    assert not (tmp_path / "prefect" / "server.json").exists()


def test_import_adopts_the_videos_of_a_folder(tmp_path: Path, coin: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("video000001.mp4", "video000002.mp4"):
        (tmp_path / "mine" / name).write_bytes((coin / "videos" / name).read_bytes())
    (tmp_path / "mine" / "video000003.mp4").write_bytes(b"broken")
    (tmp_path / "mine" / "holiday.mp4").write_bytes(b"whatever")
    home = tmp_path / "home"
    run = coinml(
        home, "import", str(tmp_path / "mine"), "--dataset", str(coin / "COIN.json"), "--json"
    )
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert report["adopted"] == ["video000001", "video000002"]
    assert list(report["failed"]) == ["video000003"]
    assert report["unknown"] == ["holiday.mp4"]
    status = json.loads(coinml(home, "status", "--json").stdout)
    assert (status["downloaded"], status["pending"]) == (2, 28)


def test_status_lists_unknown_failures_and_the_download_rate(tmp_path: Path, coin: Path) -> None:
    url = f"sqlite:///{tmp_path / 'data' / 'ledger.db'}"
    with Ledger(url) as ledger:
        ledger.register(Selection(dataset=str(coin / "COIN.json")).load(tmp_path))
        for video_id, message, rule in (
            ("video000001", "flux capacitor", "unknown"),
            ("video000002", "HTTP Error 503", "http"),
        ):
            ledger.record_fault(
                "coin",
                video_id,
                fault=Fault.TRANSIENT,
                message=message,
                rule=rule,
                next_attempt_at=datetime.now(UTC),
                attempt=Attempt(run_id="r", started_at=datetime.now(UTC)),
            )
    unknown = json.loads(coinml(tmp_path, "status", "--unknown", "--json").stdout)
    assert [(row["video_id"], row["message"]) for row in unknown] == [
        ("video000001", "flux capacitor")
    ]
    assert "flux capacitor" in coinml(tmp_path, "status", "--unknown").stdout
    status = json.loads(coinml(tmp_path, "status", "--json").stdout)
    assert (status["rate_per_hour"], status["asked_last_hour"]) == (300, 2)
    assert status["eta_hours"] == pytest.approx(0.1)
    assert "30 still possible: about 0.1 hours to go at 300 an hour (2 were asked" in " ".join(
        coinml(tmp_path, "status").stdout.split()
    )


def test_doctor_exits_with_1_only_for_failed_findings(tmp_path: Path) -> None:
    run = coinml(tmp_path, "doctor", "--json")
    findings = {finding["subject"]: finding["state"] for finding in json.loads(run.stdout)}
    assert findings["python"] == findings["decoders"] == findings["ledger"] == "ok"
    assert run.returncode == int("failed" in findings.values())
