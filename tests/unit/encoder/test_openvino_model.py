"""OpenVINO in a process: what it must not touch."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import torch

from coinml.encoder.openvino_model import compiled, converted


def test_compiling_keeps_the_signal_stack_of_its_thread() -> None:
    """With OpenVINO's own, the next signal ended the process without a message."""

    def stack() -> bytes:
        found = ctypes.create_string_buffer(64)
        assert ctypes.CDLL(None).sigaltstack(None, found) == 0
        return found.raw

    layer, pixels = torch.nn.Linear(64, 64), torch.ones(2, 64)
    before = stack()
    run = compiled(converted(layer, pixels)[0], "f32")
    assert run(pixels).shape == (2, 64)
    assert stack() == before


def test_openvino_is_imported_without_its_telemetry() -> None:
    code = (
        "import sys; from coinml.encoder.openvino_model import load_openvino as load; load();"
        "assert 'openvino' in sys.modules;"
        "print([name for name, module in sys.modules.items() if module is not None"
        " and name.startswith('openvino_telemetry')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
