"""Encoders in int8: quantizing after training, and the file that holds a quantized model.

Weights and activations of matrix products become whole numbers of 8 bits, with scales that are
found from some clips. Other clips give other scales, so the quantized model is kept in one file:
all vectors of an embedding set, and those of a registered model, come from the same one.

The only importer of nncf.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import zipfile
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coinml.encoder.kernels import OPENVINO_BATCH_VALUES, Kernel, Run, least_cosine
from coinml.encoder.sampling import INT8
from coinml.errors import InvalidInputError, LocalError

if TYPE_CHECKING:
    import torch

    from coinml.encoder.spec import EncoderSpec

logger = logging.getLogger(__name__)

_FORMAT = "coinml-int8-1"
_GRAPH, _WEIGHTS, _DESCRIPTION = "model.xml", "model.bin", "quantization.json"
_INSTALL = "pip install 'coinml[openvino]'"
_USUAL_COSINE = 0.99


def check_installed(*, quantizing: bool = False) -> None:
    """Check that an encoder can be computed in int8 here, and quantized if that is asked for.

    Raises:
        InvalidInputError: A package is missing.
    """
    needed = ("openvino", "nncf") if quantizing else ("openvino",)
    if missing := [name for name in needed if find_spec(name) is None]:
        raise InvalidInputError(
            f"precision 'int8' needs {' and '.join(missing)}, which is not installed: {_INSTALL}"
        )


def quantize(
    model: Any, batches: Sequence[torch.Tensor], spec: EncoderSpec, *, clips: Sequence[object]
) -> bytes:
    """Quantize an encoder.

    Args:
        model: Takes normalised pixels and returns vectors, in float32 on the CPU; not used for
            anything else afterwards.
        batches: Pixels of the clips that the scales are found from, (1, frames, 3, height, width)
            each. The same ones in the same order give the same model.
        spec: The quantized encoder's.
        clips: What the clips are, as JSON values; kept in the file.

    Returns:
        The content of the file.

    Raises:
        InvalidInputError: The model cannot be converted or quantized, or a package is missing.
    """
    check_installed(quantizing=True)
    from coinml.encoder.openvino_model import compiled, converted, graph_files

    try:
        graph, _ = converted(model, batches[0])
        quantized = _quantized(graph, batches)
    # Whatever the conversion raises is about this model.
    except Exception as err:
        raise InvalidInputError(
            f"encoder {spec.encoder} cannot be computed in int8: {err or type(err).__name__}"
        ) from err
    run = compiled(quantized, "f32")
    cosine = min(least_cosine(run(pixels), model(pixels)) for pixels in batches)
    if cosine < _USUAL_COSINE:
        logger.warning(
            "%s in int8: the cosine of a clip's vector to that in float32 is only %.3f; "
            "`coinml study precision` measures the cost in accuracy",
            spec.encoder,
            cosine,
        )
    description = {
        "format": _FORMAT,
        "encoder": spec.as_dict(),
        "clips": list(clips),
        "least_cosine": cosine,
        "versions": {name: version(name) for name in ("nncf", "openvino", "torch")},
    }
    graph_xml, weights = graph_files(quantized)
    return _zipped(
        {
            _DESCRIPTION: (json.dumps(description, indent=2, sort_keys=True) + "\n").encode(),
            _GRAPH: graph_xml,
            _WEIGHTS: weights,
        }
    )


def calibration_sha256(clips: Sequence[torch.Tensor]) -> str:
    """Hash of the clips that scales are found from: their sizes, pixels and order.

    Args:
        clips: Resized pixels, uint8 (frames, 3, height, width) each.
    """
    digest = sha256()
    for clip in clips:
        digest.update(f"{tuple(clip.shape)}".encode())
        digest.update(clip.contiguous().numpy().tobytes())
    return digest.hexdigest()


def int8_kernel(path: Path, spec: EncoderSpec) -> Kernel:
    """The kernel that computes a quantized model.

    Args:
        path: The file.
        spec: The encoder's.

    Raises:
        InvalidInputError: OpenVINO is missing, there is no such file, or it is another encoder's.
        LocalError: The file is damaged.
    """
    check_installed()
    # Reading verifies the checksums.
    described, graph, weights = _read(path, _GRAPH, _WEIGHTS)
    found = described["encoder"]["fingerprint"]
    if found != spec.fingerprint:
        raise InvalidInputError(
            f"{path}: holds the quantized model of encoder {found}, not of {spec.fingerprint}"
        )

    def prepare(_: torch.nn.Module, __: torch.Tensor) -> Run:
        from coinml.encoder.openvino_model import compiled, graph_of

        return compiled(graph_of(graph, weights), "f32")

    return Kernel(
        name="openvino-int8",
        dtype=INT8,
        least_cosine=0.0,
        prepare=prepare,
        batch_values=OPENVINO_BATCH_VALUES,
    )


def description_of(path: Path) -> dict[str, Any]:
    """What a quantized model was made from: encoder, clips, agreement and versions.

    Raises:
        InvalidInputError: There is no such file.
        LocalError: It is damaged.
    """
    described: dict[str, Any] = _read(path)[0]
    return described


def calibration_of(path: Path) -> str | None:
    """The `calibration_sha256` of a quantized model; None if an earlier version made it.

    Raises:
        InvalidInputError: There is no such file.
        LocalError: It is damaged.
    """
    found: str | None = description_of(path)["encoder"].get("calibration_sha256")
    return found


def _read(path: Path, *names: str) -> tuple[Any, ...]:
    """The description of a quantized model, and the content of other parts of its file."""
    try:
        with zipfile.ZipFile(path) as archive:
            described = json.loads(archive.read(_DESCRIPTION))
            parts = [archive.read(name) for name in names]
        is_known = described["format"] == _FORMAT and "fingerprint" in described["encoder"]
    except FileNotFoundError as err:
        raise InvalidInputError(
            f"precision 'int8' needs a quantized model, and {path} does not exist: "
            "`coinml embed --precision int8` makes one from training videos"
        ) from err
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as err:
        raise LocalError(
            f"{path}: not a quantized model that can be read: {err}; restore it from a copy, or "
            f"remove the set {path.parent} and embed again"
        ) from err
    if not is_known:
        raise LocalError(
            f"{path}: format {described['format']!r}, and {_FORMAT!r} can be read: another version "
            "of coinml made it"
        )
    return described, *parts


def _quantized(graph: Any, batches: Sequence[torch.Tensor]) -> Any:
    from coinml.encoder.openvino_model import load_openvino

    # Before nncf, which imports openvino and its telemetry.
    load_openvino()
    # nncf prints its progress.
    with contextlib.redirect_stdout(io.StringIO()):
        import nncf

        # Not `nncf.set_log_level`, which also sets the level of every handler of nncf's logger, and
        # with it that of a program that has attached its own handler there, as pytest does.
        logging.getLogger("nncf").setLevel(logging.ERROR)
        return nncf.quantize(
            graph,
            nncf.Dataset([pixels.numpy() for pixels in batches]),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(batches),
        )


def _zipped(files: dict[str, bytes]) -> bytes:
    """A zip file whose bytes depend on its content only."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            # The date of a ZipInfo is fixed. Weights hardly compress.
            archive.writestr(zipfile.ZipInfo(name), data)
    return content.getvalue()
