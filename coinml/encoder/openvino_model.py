"""OpenVINO: converting a loaded torch model in memory, and running it from several threads.

The only importer of openvino.
"""

from __future__ import annotations

import contextlib
import ctypes
import queue
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from coinml.runtime.cpus import cpu_count
from coinml.runtime.signal_stack import kept_signal_stack

if TYPE_CHECKING:
    import torch

    from coinml.encoder.kernels import Run


def converted(model: torch.nn.Module, example: torch.Tensor) -> tuple[Any, torch.Tensor]:
    """Convert a model to OpenVINO's graph, by tracing it with an example of its input.

    The graph shares the model's weights, so the model must not be changed afterwards.

    Args:
        model: Takes one tensor and returns one.
        example: An input; the graph takes any other number of clips too.

    Returns:
        The graph, an `openvino.Model`, and the model's own output for the example.

    Raises:
        Exception: The model has operations that OpenVINO does not know, or cannot be traced.
    """
    import torch

    openvino = load_openvino()
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    outputs: list[torch.Tensor] = []

    class Recorded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.model(inputs)
            outputs.append(output)
            return output

    with torch.no_grad(), warnings.catch_warnings():
        # torch warns that the checks of sizes become constants; sizes never change here.
        warnings.simplefilter("ignore")
        decoder = TorchScriptPythonDecoder(
            Recorded(),
            example_input=(example,),
            # torch would run the model twice more to compare, and OpenVINO does not ask it not to.
            trace_kwargs={"check_trace": False},
        )
        graph = openvino.convert_model(decoder)
    graph.reshape([-1, *example.shape[1:]])
    _give_back_memory()
    return graph, outputs[0].detach()


def compiled(graph: Any, precision: str) -> Run:
    """Compile a converted model for this machine's CPU.

    Args:
        graph: As from `converted`.
        precision: "f32" or "bf16", of the matrix products.

    Returns:
        A thread-safe function from an input to the output in float32. A call uses as many cores as
        torch would in the calling thread (`torch.get_num_threads`), one for each part of its batch.
        Calls with fewer clips than cores take all of them, by a second compiled model, once such
        calls have taken as long as compiling does.
    """
    return _CompiledModel(graph, precision)


class _CompiledModel:
    def __init__(self, graph: Any, precision: str) -> None:
        self._graph, self._precision = graph, precision
        begun = time.perf_counter()
        self._by_one_core = _Requests(graph, precision, streams=cpu_count())
        self._compile_s = time.perf_counter() - begun
        self._by_all_cores: _Requests | None = None
        self._waited_s = 0.0
        self._lock = threading.Lock()

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        import torch

        cores = torch.get_num_threads()
        if len(inputs) >= cores:
            return self._by_one_core(inputs, parts=cores)
        with self._lock:
            # It takes time and memory, which a single clip does not repay.
            if self._by_all_cores is None and self._waited_s >= self._compile_s:
                self._by_all_cores = _Requests(self._graph, self._precision, streams=1)
        if self._by_all_cores is not None:
            return self._by_all_cores(inputs, parts=1)
        begun = time.perf_counter()
        outputs = self._by_one_core(inputs, parts=len(inputs))
        self._waited_s += time.perf_counter() - begun
        return outputs


class _Requests:
    """A graph compiled for a number of requests at once, each with its share of the cores."""

    def __init__(self, graph: Any, precision: str, *, streams: int) -> None:
        # Compiling leaves a signal stack of the model's in this thread, and a model that is let go
        # puts back the one that it has found, which may be freed by then (2026.4).
        with kept_signal_stack():
            self._compiled = (
                load_openvino()
                .Core()
                .compile_model(
                    graph,
                    "CPU",
                    {
                        # By default it is bf16 where the processor has it.
                        "INFERENCE_PRECISION_HINT": precision,
                        # With as many as cores, a stream computes a request with one thread:
                        # threads that share one wait for each other, and decoding processes use
                        # the same cores.
                        "INFERENCE_NUM_THREADS": cpu_count(),
                        "NUM_STREAMS": streams,
                        "ENABLE_CPU_PINNING": False,
                    },
                )
            )
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __call__(self, inputs: torch.Tensor, *, parts: int) -> torch.Tensor:
        import torch

        split = inputs.tensor_split(parts)
        requests = [self._request() for _ in split]
        for request, part in zip(requests, split, strict=True):
            # Without a copy, a later request could overwrite the input.
            request.start_async([part.contiguous().numpy()], share_inputs=False)
        outputs = []
        for request in requests:
            request.wait()
            # The request's own memory is used again by the next call.
            outputs.append(torch.from_numpy(request.get_output_tensor(0).data.copy()))
        # Only after all are done: of a call that fails, no request is used again.
        for request in requests:
            self._idle.put(request)
        return torch.cat(outputs)

    def _request(self) -> Any:
        """A request that no other call uses."""
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self._compiled.create_infer_request()


def graph_files(graph: Any) -> tuple[bytes, bytes]:
    """A graph as OpenVINO writes it: the content of its XML file and of its weights."""
    openvino = load_openvino()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model.xml"
        openvino.save_model(graph, place, compress_to_fp16=False)
        return place.read_bytes(), place.with_suffix(".bin").read_bytes()


def graph_of(xml: bytes, weights: bytes) -> Any:
    """The inverse of `graph_files`."""
    return load_openvino().Core().read_model(model=xml, weights=weights)


def _give_back_memory() -> None:
    """Return freed memory to the system: tracing frees hundreds of megabytes in small pieces."""
    with contextlib.suppress(OSError, AttributeError):
        # Only glibc keeps it, and only glibc has the function.
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def load_openvino() -> ModuleType:
    """Import openvino without its telemetry, which by default reports each import to its makers."""
    # None makes the import of the package fail, and OpenVINO then uses an empty stand-in.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    module: ModuleType = openvino
    return module
