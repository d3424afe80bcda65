"""The files of `coinml up --print` are valid for systemd and Docker Compose."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from coinml.errors import InvalidInputError
from coinml.miniature.host import FlakyHost
from coinml_ops.access.password import stored_password
from coinml_ops.stack.record import Stack
from coinml_ops.stack.service_files import secrets_path, service_files, write_secrets

ROOT = Path(__file__).resolve().parents[3]
SECRET = "pass$word%40"
SERVICES = {"prefect", "mlflow", "metrics", "worker-network", "worker-gpu"}


@pytest.fixture
def printed(tmp_path: Path) -> Callable[..., tuple[dict[str, str], Path]]:
    """A function that runs `coinml up --print`; returns the files and the secrets file."""

    def run(kind: str, *options: str) -> tuple[dict[str, str], Path]:
        home = tmp_path / "a home"
        done = subprocess.run(
            [sys.executable, "-m", "coinml_cli", "up", "--print", kind, "--json", *options],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=os.environ
            | {
                "COINML_HOME": str(home),
                "COINML_POSTGRES": f"postgresql://coinml:{SECRET}@db.local",
                "COINML_RATE_PER_HOUR": "100",
            },
        )
        assert done.returncode == 0, done.stderr
        assert SECRET not in done.stdout + done.stderr
        answer = json.loads(done.stdout)
        return answer["files"], Path(answer["secrets"])

    return run


def test_secrets_are_in_a_separate_private_file(printed: Callable[..., Any]) -> None:
    _, secrets = printed("systemd")
    assert secrets.stat().st_mode & 0o777 == 0o600
    assert secrets.read_text() == (
        f"COINML_POSTGRES='postgresql://coinml:{SECRET}@db.local'\nCOINML_RATE_PER_HOUR='100'\n"
    )


@pytest.mark.parametrize(
    "value",
    ["it's-s3cret", 's3cret"', "s3cret\nCOINML_HOME=/", "s3cret\r", "s3cret\\n", "s3cret\x1b"],
)
def test_a_secret_that_the_file_cannot_hold_is_refused_and_not_shown(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINML_PROXY", f"http://joe:{value}@proxy.example:3128")
    stack = Stack(id="a", home=str(tmp_path))
    with pytest.raises(InvalidInputError, match=r"COINML_PROXY: .* cannot be in a file") as caught:
        write_secrets(stack)
    assert "s3cret" not in str(caught.value)
    assert not secrets_path(stack).exists()


@pytest.mark.parametrize("kind", ["systemd", "compose"])
@pytest.mark.parametrize("name", ["a\nExecStart=/x", "it's", 'say "x"', "back\\slash"])
def test_a_path_that_the_files_cannot_hold_is_refused(kind: str, name: str, tmp_path: Path) -> None:
    for stack, what in (
        (Stack(id="a", home=str(tmp_path / name)), "COINML_HOME"),
        (Stack(id="a", home=str(tmp_path), dataset=f"folder:/{name}"), "--dataset"),
    ):
        with pytest.raises(InvalidInputError, match=f"{what} .* cannot be in a file"):
            service_files(kind, stack, coinml=("coinml",))


def test_health_checks_go_around_a_proxy(tmp_path: Path) -> None:
    with FlakyHost(tmp_path) as host:
        port = int(host.url.rpartition(":")[2])
        stack = Stack(id="a", home=str(tmp_path / "home"), prefect_port=port, mlflow_port=port)
        (text,) = service_files("compose", stack, coinml=("coinml",)).values()
        check = yaml.safe_load(text)["services"]["mlflow"]["healthcheck"]["test"]
        # The host answers its own log instead of /health.
        command = check[-1].replace("/health", "/_log")
        done = subprocess.run(
            [sys.executable, "-c", command],
            env={**os.environ, "http_proxy": "http://127.0.0.1:9", "no_proxy": ""},
            check=False,
            capture_output=True,
        )
    assert done.returncode == 0, done.stderr


def test_compose_takes_no_part_of_a_path_for_a_variable(tmp_path: Path) -> None:
    stack = Stack(id="a", home=str(tmp_path / "$HOME"), dataset="folder:/data/$USER")
    (text,) = service_files("compose", stack, coinml=("coinml",)).values()
    services = yaml.safe_load(text)["services"]
    assert services["deploy"]["command"][-1] == "folder:/data/$$USER"
    assert all("/$$HOME/" in one["path"] for one in services["deploy"]["env_file"])


@pytest.mark.parametrize("kind", ["systemd", "compose"])
def test_the_servers_password_is_in_no_printed_file(printed: Callable[..., Any], kind: str) -> None:
    files, secrets = printed(kind)
    access = secrets.parents[1] / "access.env"
    assert access.stat().st_mode & 0o777 == 0o600
    password = stored_password(secrets.parents[1])
    assert len(password) >= 40
    assert set(dict(line.split("=", 1) for line in access.read_text().splitlines())) == {
        "COINML_SERVER_PASSWORD",
        "PREFECT_API_AUTH_STRING",
        "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD",
    }
    for text in (*files.values(), secrets.read_text()):
        assert password not in text
    # Printing again keeps it.
    printed(kind)
    assert stored_password(secrets.parents[1]) == password


def test_systemd_accepts_the_units(
    printed: Callable[..., Any], find_program: Callable[..., str], tmp_path: Path
) -> None:
    files, secrets = printed("systemd", "--prefect-port", "4321", "--dataset", "mini")
    assert set(files) == {
        *(f"coinml-{name}.service" for name in (*SERVICES, "deploy")),
        "coinml.target",
    }
    folder = tmp_path / "units"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    verify = [find_program("systemd-analyze", package="systemd"), "verify"]
    units = [str(path) for path in sorted(folder.iterdir())]
    done = subprocess.run([*verify, *units], capture_output=True, text=True, check=False)
    # It also complains about units that are installed on this machine.
    said = [line for line in done.stderr.splitlines() if "coinml" in line or str(folder) in line]
    assert said == []
    # An invalid unit or file is reported.
    spoilt = folder / "coinml-prefect.service"
    spoilt.write_text(spoilt.read_text().replace("RestartSec", "RestartSeconds"))
    done = subprocess.run([*verify, str(spoilt)], capture_output=True, text=True, check=False)
    assert "RestartSeconds" in done.stderr
    for name in SERVICES:
        text = files[f"coinml-{name}.service"]
        assert "\nRestart=always\n" in text
        assert f"\nEnvironmentFile=-{secrets}\n" in text
        assert f"\nEnvironmentFile={secrets.parents[1] / 'access.env'}\n" in text
        assert "--host 127.0.0.1 --prefect-port 4321" in text
        assert "\nNoNewPrivileges=yes\n" in text
    assert "deploy --dataset mini" in files["coinml-deploy.service"]
    for name, module in (("prefect", "coinml_ops.stack"), ("deploy", "coinml_cli")):
        assert f" -P -m {module} {name} " in files[f"coinml-{name}.service"]


def test_the_compose_file_follows_its_schema(printed: Callable[..., Any], tmp_path: Path) -> None:
    files, secrets = printed("compose", "--mlflow-port", "5432")
    (text,) = files.values()
    content = yaml.safe_load(text)
    assert _faults(content, tmp_path) == ""
    # An invalid unit or file is reported.
    assert "restarts" in _faults({"services": {"a": {"restarts": "always"}}}, tmp_path)
    services = content["services"]
    assert set(services) == SERVICES | {"deploy"}
    for name, service in services.items():
        assert service["restart"] == ("on-failure" if name == "deploy" else "unless-stopped")
        assert service["env_file"] == [
            # Without the servers' password, nothing starts.
            {"path": str(secrets.parents[1] / "access.env"), "required": True},
            {"path": str(secrets), "required": False},
        ]
        assert service["volumes"] == ["state:/state"]
        assert Path(service["build"]["context"]) == ROOT
        assert set(service.get("depends_on", {})) <= set(services)
    assert services["mlflow"]["ports"] == ["127.0.0.1:5432:5432"]
    assert services["worker-gpu"]["environment"]["MLFLOW_TRACKING_URI"] == "http://mlflow:5432"
    for name in ("prefect", "mlflow", "metrics"):
        assert services[name]["healthcheck"]["test"][:2] == ["CMD", "python"]
        # It listens on all addresses of its container, and accepts its service name as host name.
        command = services[name]["command"]
        assert command[command.index("--host") + 1] == "0.0.0.0"
        assert command[command.index("--allow-host") + 1] == name


def test_the_dockerfile_uses_existing_files_and_extras() -> None:
    text = (ROOT / "Dockerfile").read_text()
    ((base, digest),) = re.findall(r"^FROM python:(\d\.\d+)\S+@sha256:(\w+)$", text, re.MULTILINE)
    assert base == "3.11"
    assert re.fullmatch("[0-9a-f]{64}", digest)
    ((constraints, extras),) = re.findall(r"pip install .*-c (\S+) -e '\.\[(.*)\]'", text)
    assert (ROOT / constraints).is_file()
    project = (ROOT / "pyproject.toml").read_text()
    for extra in extras.split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE)
    # The code is copied into the image; state and secrets of this machine are not.
    allowed = allowed_in_the_image()
    assert not {".git", ".venv", "data", "mlartifacts", "mlflow.db", ".env"} & set(allowed)
    assert {"prefect.yaml", "flows", "coinml", "tasks", constraints} <= set(allowed)
    assert "USER coinml" in text


def allowed_in_the_image() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    first, *rules = [line for line in lines if line and not line.startswith("#")]
    assert first == "*"
    return [rule[1:] for rule in rules if rule.startswith("!")]


def test_what_enters_the_image_suffices_to_install_it(tmp_path: Path) -> None:
    for name in allowed_in_the_image():
        assert "*" not in name
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name)
        else:
            shutil.copyfile(ROOT / name, tmp_path / name)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
    assert {
        "coinml/__init__.py",
        "coinml_cli/app.py",
        "coinml_ops/stack/__main__.py",
        "coinml_ops/project/prefect.yaml",
        "coinml_ops/project/flows/pipeline.py",
        "coinml_ops/project/tasks/training.py",
        "coinml/miniature/videomae-tiny/model.safetensors",
    } <= names


def _faults(content: Any, folder: Path) -> str:
    """Violations of the schema of compose files."""
    path = folder / "compose.yaml"
    path.write_text(yaml.safe_dump(content))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "check_jsonschema",
            "--builtin-schema",
            "vendor.compose-spec",
            "--verbose",
            str(path),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr
