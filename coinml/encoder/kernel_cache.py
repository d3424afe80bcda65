"""What was measured of the kernels, kept by machine and encoder in the folder of all state."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from coinml.runtime.atomic_files import write_whole
from coinml.runtime.cpus import cpu_count
from coinml.runtime.home import home

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFigure:
    """What was measured of one kernel.

    Attributes:
        name: The kernel's.
        clip_s: CPU seconds of one clip, estimated from one layer.
        prepare_s: CPU seconds of preparing the model, likewise.
        cosine: Least cosine of its vectors to torch's in float32.
        fault: Why it is not used; empty if it can be.
    """

    name: str
    clip_s: float = 0.0
    prepare_s: float = 0.0
    cosine: float = 0.0
    fault: str = ""

    def seconds(self, clips: int, *, cores: int) -> float:
        """Estimated seconds of a number of clips on a number of cores."""
        return self.prepare_s + clips * self.clip_s / cores

    def __str__(self) -> str:
        if self.fault:
            return f"{self.name}: {self.fault}"
        return f"{self.name} {self.clip_s:.3g} CPU s a clip (cosine {self.cosine:.6f})"


def cached_figures(kernels: Sequence[str], fingerprint: str) -> tuple[KernelFigure, ...]:
    """The kept figures of some of these kernels for an encoder on this machine."""
    path = _path(kernels, fingerprint)
    try:
        found = _read(path)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError, KeyError) as err:
        logger.info("%s is not used: %s", path, err)
        return ()
    return tuple(figure for figure in found if figure.name in kernels)


def keep_figures(kernels: Sequence[str], figures: Sequence[KernelFigure], fingerprint: str) -> None:
    """Keep figures of some of these kernels; a folder that cannot be written is no error."""
    path = _path(kernels, fingerprint)
    kept = {
        "machine": machine(),
        "encoder": fingerprint,
        "figures": [asdict(figure) for figure in figures],
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(kept, indent=2), durable=False)
    except OSError as err:
        logger.info("the figures of the kernels are not kept: %s", err)


def all_cached_figures() -> Iterator[tuple[str, tuple[KernelFigure, ...]]]:
    """Fingerprint and figures of each encoder that was measured on this machine."""
    for path in sorted(_folder().glob("*.json")):
        try:
            kept = json.loads(path.read_text())
            if kept["machine"] == machine():
                yield str(kept["encoder"]), _read(path)
        except (OSError, ValueError, TypeError, KeyError):
            continue


@cache
def machine() -> dict[str, str]:
    """What the figures depend on besides the encoder: processor, cores and libraries."""
    return {
        "processor": processor(),
        "cores": str(cpu_count()),
        "torch": _version("torch"),
        "openvino": _version("openvino"),
        "transformers": _version("transformers"),
    }


def processor() -> str:
    """The processor's name, with family, model and stepping where the system tells them."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    lines = (line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, value in lines}
    # Virtual machines call different processors by one name.
    names = ("model name", "cpu family", "model", "stepping")
    return " ".join(facts[name] for name in names if name in facts) or platform.machine()


def _read(path: Path) -> tuple[KernelFigure, ...]:
    kept = json.loads(path.read_text())
    if not kept["figures"]:
        raise ValueError("it has no figures")
    return tuple(
        KernelFigure(
            name=str(one["name"]),
            clip_s=float(one["clip_s"]),
            prepare_s=float(one["prepare_s"]),
            cosine=float(one["cosine"]),
            fault=str(one["fault"]),
        )
        for one in kept["figures"]
    )


def _path(kernels: Sequence[str], fingerprint: str) -> Path:
    about = json.dumps([machine(), list(kernels)], sort_keys=True)
    return _folder() / f"{fingerprint}-{hashlib.sha256(about.encode()).hexdigest()[:12]}.json"


def _folder() -> Path:
    return home() / "data" / "cache" / "kernels"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
