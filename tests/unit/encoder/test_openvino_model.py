"""OpenVINO in a process: what it must not touch."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import torch

from coinml.encoder.openvino_model import _CompiledModel, compiled, converted


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


def test_a_lone_clip_takes_all_cores_once_compiling_for_them_pays() -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 8))
    pixels = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    run = compiled(converted(layer, pixels)[0], "f32")
    assert isinstance(run, _CompiledModel)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        wanted = run(pixels[:1])
        # A thread that has one core leaves the others to its neighbours.
        run._compile_s = 0.0
        assert torch.equal(run(pixels[:1]), wanted)
        assert (run._waited_s, run._by_all_cores) == (0.0, None)
        torch.set_num_threads(2)
        run._compile_s = 1e-9
        assert torch.equal(run(pixels[:1]), wanted)
        assert run._by_all_cores is None
        assert torch.equal(run(pixels[:1]), wanted)
        assert run._by_all_cores is not None
        assert torch.equal(run(pixels[:1]), wanted)
        assert run(pixels).shape == (3, 8)
    finally:
        torch.set_num_threads(before)


def test_openvino_is_imported_without_its_telemetry() -> None:
    code = (
        "import sys; from coinml.encoder.openvino_model import load_openvino as load; load();"
        "assert 'openvino' in sys.modules;"
        "print([name for name, module in sys.modules.items() if module is not None"
        " and name.startswith('openvino_telemetry')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
