"""systemd units that run the services of a stack: `coinml up --print systemd`."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence
from pathlib import Path

from coinml_ops.prefect_project import PROJECT
from coinml_ops.stack.record import Stack
from coinml_ops.stack.services import PREFECT, Service, services

TARGET = "coinml.target"
FOLDER = "/etc/systemd/system"


def units(stack: Stack, *, secrets: tuple[Path, Path], coinml: Sequence[str]) -> dict[str, str]:
    """The text of each unit by its file's name.

    Args:
        stack: What is to run.
        secrets: Files of variables that only their owner may read: the servers' password, which
            must exist, and the others.
        coinml: Command line of `coinml`, to which `deploy` is appended.
    """
    running = services(stack)
    written = {f"coinml-{one.name}.service": _service(stack, one, secrets) for one in running}
    written["coinml-deploy.service"] = _deploy(stack, secrets, coinml)
    written[TARGET] = _unit(
        {
            "Unit": [
                ("Description", "coinml: Prefect, MLflow, metrics and workers"),
                ("Wants", " ".join(written)),
            ],
            "Install": [("WantedBy", "multi-user.target")],
        }
    )
    return written


def _service(stack: Stack, service: Service, secrets: tuple[Path, Path]) -> str:
    worker = service.queue is not None
    command = [sys.executable, "-P", "-m", "coinml_ops.stack", service.name, *_options(stack)]
    return _unit(
        {
            "Unit": [
                ("Description", f"coinml: {service.name}"),
                ("PartOf", TARGET),
                (
                    "After",
                    f"network-online.target coinml-{PREFECT}.service"
                    if worker
                    else "network-online.target",
                ),
                ("Wants", "network-online.target"),
                # No limit on restarts: a database that is down may return a day later.
                ("StartLimitIntervalSec", "0"),
            ],
            "Service": [
                ("Type", "exec"),
                *_where(stack, secrets),
                ("ExecStart", _quoted(command)),
                ("Restart", "always"),
                ("RestartSec", "5"),
                # The service stops its children itself, in the right order.
                ("KillMode", "mixed"),
                ("TimeoutStopSec", "90"),
                *_hardening(stack),
            ],
            "Install": [("WantedBy", TARGET)],
        }
    )


def _deploy(stack: Stack, secrets: tuple[Path, Path], coinml: Sequence[str]) -> str:
    command = [*coinml, "deploy"]
    if stack.dataset:
        command += ["--dataset", stack.dataset]
    return _unit(
        {
            "Unit": [
                ("Description", "coinml: the deployments"),
                ("After", f"coinml-{PREFECT}.service"),
                ("Requires", f"coinml-{PREFECT}.service"),
                ("PartOf", TARGET),
                ("StartLimitIntervalSec", "0"),
            ],
            "Service": [
                ("Type", "oneshot"),
                ("RemainAfterExit", "yes"),
                *_where(stack, secrets),
                ("Environment", f"PREFECT_API_URL={stack.prefect_api}"),
                ("ExecStart", _quoted(command)),
                # The server may not answer yet.
                ("Restart", "on-failure"),
                ("RestartSec", "5"),
                *_hardening(stack),
            ],
            "Install": [("WantedBy", TARGET)],
        }
    )


def _where(stack: Stack, secrets: tuple[Path, Path]) -> list[tuple[str, str]]:
    binaries = Path(sys.executable).parent
    password, others = secrets
    return [
        ("User", getpass.getuser()),
        ("WorkingDirectory", _escaped(str(PROJECT))),
        ("Environment", _quoted([f"COINML_HOME={stack.home}"])),
        ("Environment", _quoted([f"PATH={binaries}:/usr/local/bin:/usr/bin:/bin"])),
        ("EnvironmentFile", _escaped(str(password))),
        ("EnvironmentFile", f"-{_escaped(str(others))}"),
    ]


def _hardening(stack: Stack) -> list[tuple[str, str]]:
    """Restrictions of rights that no service needs; devices and writable code stay for CUDA."""
    return [
        ("UMask", "0027"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ReadWritePaths", _quoted([stack.home])),
        # Encoders from the Hugging Face hub are cached there.
        ("ReadWritePaths", _quoted([f"-{Path.home() / '.cache'}"])),
        ("PrivateTmp", "yes"),
        ("ProtectKernelTunables", "yes"),
        ("ProtectKernelModules", "yes"),
        ("ProtectKernelLogs", "yes"),
        ("ProtectControlGroups", "yes"),
        ("ProtectClock", "yes"),
        ("ProtectHostname", "yes"),
        ("RestrictNamespaces", "yes"),
        ("RestrictRealtime", "yes"),
        ("RestrictSUIDSGID", "yes"),
        ("LockPersonality", "yes"),
        ("SystemCallArchitectures", "native"),
        ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6 AF_NETLINK"),
        ("CapabilityBoundingSet", ""),
    ]


def _options(stack: Stack) -> list[str]:
    return [
        *("--host", stack.host),
        *("--prefect-port", str(stack.prefect_port)),
        *("--mlflow-port", str(stack.mlflow_port)),
        *("--metrics-port", str(stack.metrics_port)),
    ]


def _unit(sections: dict[str, list[tuple[str, str]]]) -> str:
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in entries)
        for name, entries in sections.items()
    )


def _quoted(words: list[str]) -> str:
    """Words as a systemd command line, with %, $ and quotes escaped."""
    return " ".join(
        f'"{escaped}"' if " " in escaped else escaped
        for escaped in (_escaped(word).replace("$", "$$").replace('"', r"\"") for word in words)
    )


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "%%")
