"""Registration: a trained head becomes a version of the registered model."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import mlflow
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from coinml.embedding_sets.spec import SetSpec
from coinml.encoder.checkpoint import Checkpoint
from coinml.encoder.sampling import INT8
from coinml.errors import InvalidInputError
from coinml.evaluation.abstention import ValAnswers
from coinml.registry.versions import CHALLENGER, point_alias
from coinml.tracking.mlflow_store import MlflowStore


def register(
    store: MlflowStore,
    name: str,
    run_id: str,
    *,
    head_file: Path,
    checkpoint: Checkpoint,
    spec: SetSpec,
    val_answers: ValAnswers | None = None,
    by_reference: bool,
    tags: Mapping[str, str],
    about: str = "",
    description: str = "",
    before_version: Callable[[], None] = lambda: None,
) -> int:
    """Log a run's model and register it as a version, with the alias `challenger`.

    The run's tag `version` is written last, so that a run with this tag is complete.

    Args:
        store: Where the registry is.
        name: The registered model; it is created if it does not exist.
        run_id: The run that the head was trained in.
        head_file: The head.
        checkpoint: The encoder's files.
        spec: The embedding set that the head was trained on.
        val_answers: The head's answers on val, by which the model abstains.
        by_reference: The model names its encoder on the hub, and the encoder is not stored.
        tags: Tags of the version.
        about: Description of the registered model, used when it is created here.
        description: Description of the version.
        before_version: Called when the model is stored and before its version is created.

    Returns:
        The version's number.

    Raises:
        InvalidInputError: `by_reference` with an encoder that is a local folder or quantized; or
            the quantized model of the set is missing.
    """
    if by_reference and checkpoint.commit is None:
        raise InvalidInputError(
            f"{checkpoint.ref}: is a folder; only an encoder on the hub can be referred to"
        )
    if spec.encoder.precision == INT8 and (by_reference or checkpoint.quantized is None):
        raise InvalidInputError(
            f"the encoder of set {spec.fingerprint} is quantized, and a registered model needs "
            "its quantized model: "
            + (
                "it cannot be registered by reference"
                if by_reference
                else "the set has lost its own"
            )
        )
    client = store.client()
    logged = _log_model(
        store, run_id, head_file, checkpoint, spec, val_answers, by_reference=by_reference
    )
    before_version()
    with contextlib.suppress(MlflowException):
        client.create_registered_model(name, description=about)
    version = client.create_model_version(
        name,
        logged.model_uri,
        run_id=run_id,
        model_id=logged.model_id,
        description=description,
        tags=dict(tags),
    )
    point_alias(client, name, CHALLENGER, version.version)
    client.set_tag(run_id, "version", str(version.version))
    return int(version.version)


def _log_model(
    store: MlflowStore,
    run_id: str,
    head_file: Path,
    checkpoint: Checkpoint,
    spec: SetSpec,
    val_answers: ValAnswers | None,
    *,
    by_reference: bool,
) -> LoggedModel:
    """Write a model to a run's artifacts, and store its encoder.

    `mlflow.pyfunc.log_model` would load the whole model with its encoder to try its input
    example, and end the run.
    """
    from coinml.registry.model_files import staged_model
    from coinml.registry.stored_encoders import store_encoder

    client = store.client()
    run = client.get_run(run_id)
    logged = client.create_logged_model(
        run.info.experiment_id, "model", source_run_id=run_id, params=dict(run.data.params)
    )
    described = Model(
        artifact_path=logged.artifact_location,
        run_id=run_id,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
    )
    try:
        digest = None if by_reference else store_encoder(store, logged.model_id, checkpoint.files)
        staged = staged_model(
            head_file,
            spec=spec,
            val_answers=val_answers,
            encoder_digest=digest,
            encoder_ref=checkpoint.ref if by_reference else None,
            revision=checkpoint.commit if by_reference else None,
        )
        with staged as model, tempfile.TemporaryDirectory() as folder:
            mlflow.pyfunc.save_model(Path(folder) / "model", mlflow_model=described, **model)
            client.log_model_artifacts(logged.model_id, str(Path(folder) / "model"))
    except BaseException:
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return client.finalize_logged_model(logged.model_id, "READY")
