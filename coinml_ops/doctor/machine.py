"""Checks Python, torch, the video decoders and the disk."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

from coinml.runtime.settings import Settings
from coinml.upkeep.disk import data_place, forecast_disk
from coinml_ops.doctor.finding import Finding

TESTED_PYTHON = (3, 11)


def check_python() -> Finding:
    """Whether this is the tested Python version."""
    text = f"{platform.python_version()} on {platform.machine()}"
    if sys.version_info[:2] != TESTED_PYTHON:
        return Finding(
            subject="python",
            state="warning",
            text=f"{text}; tested with 3.11",
            remedy="constraints.txt is for 3.11: make PYTHON=/path/to/python3.11",
        )
    return Finding(subject="python", state="ok", text=text)


def check_torch(settings: Settings) -> Finding:
    """Whether torch sees the device that COINML_DEVICE names."""
    import torch

    cuda = torch.cuda.is_available()
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    text = f"{torch.__version__}, " + (", ".join(names) if cuda else "no CUDA device")
    if cuda:
        text += f" (CUDA {torch.version.cuda})"
    if settings.device.startswith("cuda") and not cuda:
        return Finding(
            subject="torch",
            state="failed",
            text=f"{text}, but COINML_DEVICE={settings.device}",
            remedy="install a CUDA build of torch, or set COINML_DEVICE=cpu",
        )
    remedy = "" if cuda else "embedding runs on the CPU: fine for small sets, days for COIN"
    return Finding(subject="torch", state="ok" if cuda else "warning", text=text, remedy=remedy)


def check_decoders() -> Finding:
    """Which video decoders can be loaded."""
    from coinml.media import decoders_here

    # Each is loaded, since torchcodec can be installed without finding FFmpeg's libraries.
    found = decoders_here()
    text = ", ".join(what if name in what else f"{name} {what}" for name, what in found.items())
    if found["pyav"].startswith("pyav"):
        return Finding(subject="decoders", state="failed", text=text, remedy="pip install av")
    return Finding(subject="decoders", state="ok", text=text)


def check_kernels() -> Finding:
    """How encoders can be computed on this CPU, and what was measured of each way."""
    from coinml.encoder.kernel_cache import all_cached_figures, processor
    from coinml.encoder.kernels import KERNELS, available_kernels

    names = available_kernels()
    measured = [
        f"encoder {fingerprint}: {', '.join(map(str, figures))}"
        for fingerprint, figures in all_cached_figures()
    ]
    text = "; ".join([f"{', '.join(names)} on {processor()}", *measured])
    # A missing one is no fault: torch computes every encoder.
    missing = {kernel.install for kernel in KERNELS.values() if kernel.name not in names} - {""}
    remedy = f"often twice as fast on a CPU: {', '.join(sorted(missing))}" if missing else ""
    return Finding(subject="kernels", state="ok", text=text, remedy=remedy)


def check_confinement() -> Finding:
    """What decoding processes can reach, tried in a process that is confined like them."""
    run = subprocess.run(
        [sys.executable, "-P", "-m", "coinml.runtime.confinement"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(run.stdout)
    by = f" ({', '.join(found['layers'])})" if found["layers"] else ""
    if found["open_to"]:
        return Finding(
            subject="confinement",
            state="warning",
            text=f"decoding processes can reach {' and '.join(found['open_to'])}{by}",
            remedy="use a kernel with Landlock (Linux 5.13) or seccomp and a container that allows "
            "them; without, decode only files from sources that you trust",
        )
    return Finding(
        subject="confinement",
        state="ok",
        text=f"decoding processes reach neither files nor the network{by}",
    )


def check_disk(settings: Settings) -> Finding:
    """Whether the free space suffices for the videos to come and two more weeks."""
    place = data_place(settings)
    if not os.access(place, os.W_OK):
        return Finding(
            subject="disk",
            state="failed",
            text=f"{place} cannot be written",
            remedy="set COINML_HOME to a folder that can",
        )
    forecast = forecast_disk(settings)
    text = f"{settings.data_dir}: {forecast}"
    if forecast.low:
        return Finding(
            subject="disk",
            state="warning",
            text=text,
            remedy="free some space (`coinml gc` lists what can go), or set COINML_HOME to a "
            "larger disk",
        )
    return Finding(subject="disk", state="ok", text=text)
