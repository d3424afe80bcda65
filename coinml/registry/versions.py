"""The model registry: versions, aliases, and the gate that a champion has passed."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from coinml.embedding_sets.spec import SetSpec
from coinml.encoder.checkpoint import Checkpoint
from coinml.errors import InvalidInputError, RegistryError, TransientError
from coinml.registry.gate import COVERAGE_FLOOR, judge, number_of
from coinml.tracking.mlflow_store import MlflowStore, answering, is_missing

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
PASSED, PROMOTED, REFUSED, ROLLED_BACK = "passed", "promoted", "refused", "rolled back"
"""What stands in a version's tag `gate`; who has passed is promoted with the alias."""
_ALIAS_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the gate said of a version.

    Attributes:
        model: Name of the registered model.
        version: The candidate.
        promoted: Whether it is the champion now.
        reason: Why, or why not; stands on the version, too.
    """

    model: str
    version: int
    promoted: bool
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)


def model_uri(name: str, alias: str = CHAMPION) -> str:
    """What `mlflow.pyfunc.load_model` takes."""
    return f"models:/{name}@{alias}"


def register(
    store: MlflowStore,
    name: str,
    run_id: str,
    *,
    head_file: Path,
    checkpoint: Checkpoint,
    spec: SetSpec,
    by_reference: bool,
    tags: Mapping[str, str],
    about: str = "",
    description: str = "",
) -> int:
    """Log a run's model and make it a version, the challenger until the gate has spoken.

    The run's tag `version` is written last: a run that has it is whole.

    Args:
        store: Where the registry is.
        name: The registered model, which is made if it is not there.
        run_id: The run that the head was trained in.
        head_file: The head.
        checkpoint: The encoder's files.
        spec: The embedding set that it learnt from.
        by_reference: Name the encoder on the hub instead of carrying it.
        tags: The version's.
        about: The registered model's description, if it is made here.
        description: The version's.

    Returns:
        The version's number.
    """
    from coinml.registry.video_classifier import staged_model

    if by_reference and checkpoint.commit is None:
        raise InvalidInputError(
            f"{checkpoint.ref}: is a folder; only an encoder on the hub can be referred to"
        )
    client = store.client()
    with staged_model(
        head_file,
        checkpoint.files,
        spec=spec,
        encoder_ref=checkpoint.ref if by_reference else None,
        revision=checkpoint.commit if by_reference else None,
    ) as model:
        logged = _log_model(client, run_id, model)
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
    _point(client, name, CHALLENGER, version.version)
    client.set_tag(run_id, "version", str(version.version))
    return int(version.version)


def promote(
    store: MlflowStore,
    name: str,
    versions: Sequence[int] | None = None,
    *,
    coverage_floor: float = COVERAGE_FLOOR,
) -> list[Verdict]:
    """Send candidates through the gate, the best on val first.

    Args:
        store: Where the registry is.
        name: The registered model.
        versions: The candidates; None takes those that the gate has not seen, or the
            challenger.
        coverage_floor: Least share of the official test videos that a challenger must have
            been measured on.

    Raises:
        RegistryError: No such model or version.
    """
    client = store.client()
    if versions is None:
        versions = _unseen(store, name)
    candidates = [_version(store, name, number) for number in versions]
    candidates.sort(key=lambda candidate: -number_of(candidate, "val_accuracy"))
    verdicts = []
    for candidate in candidates:
        champion = version_at(store, name, CHAMPION)
        if champion is not None and champion.version == candidate.version:
            reason = champion.tags.get("gate_reason", "it is the champion already")
            # A crash came between the alias and the tag.
            if champion.tags.get("gate") == PASSED:
                client.set_model_version_tag(name, champion.version, "gate", PROMOTED)
            verdicts.append(
                Verdict(model=name, version=int(candidate.version), promoted=True, reason=reason)
            )
            continue
        if candidate.tags.get("gate") == ROLLED_BACK:
            verdicts.append(
                Verdict(
                    model=name,
                    version=int(candidate.version),
                    promoted=False,
                    reason=f"{candidate.tags['gate_reason']}; another rollback brings it back",
                )
            )
            continue
        passed, reason = judge(store, candidate, champion, coverage_floor=coverage_floor)
        # The verdict before the alias: a crash in between leaves the old champion, and the
        # next call takes up who has passed and is not promoted.
        client.set_model_version_tag(name, candidate.version, "gate_reason", reason)
        client.set_model_version_tag(name, candidate.version, "gate", PASSED if passed else REFUSED)
        if passed:
            if champion is not None:
                _point(client, name, PREVIOUS, champion.version)
            _point(client, name, CHAMPION, candidate.version)
            client.set_model_version_tag(name, candidate.version, "gate", PROMOTED)
        verdicts.append(
            Verdict(model=name, version=int(candidate.version), promoted=passed, reason=reason)
        )
    # Registration made the last one the challenger; that is the best of those who did not pass.
    refused = [verdict.version for verdict in verdicts if not verdict.promoted]
    if refused:
        _point(client, name, CHALLENGER, str(refused[0]))
    return verdicts


def rollback(store: MlflowStore, name: str) -> Verdict:
    """Make the previous champion the champion again; the two change places.

    The gate does not let a version that was rolled back pass again: a person has spoken.

    Raises:
        RegistryError: There is no previous champion.
    """
    champion, previous = version_at(store, name, CHAMPION), version_at(store, name, PREVIOUS)
    if champion is None or previous is None or previous.version == champion.version:
        raise RegistryError(f"{name} has no {PREVIOUS} champion to go back to")
    client = store.client()
    reason = f"rolled back from version {champion.version}"
    # First the tags: after a crash the gate does not bring back who was to go.
    for version, verdict, why in (
        (champion.version, ROLLED_BACK, f"rolled back to version {previous.version}"),
        (previous.version, PROMOTED, reason),
    ):
        client.set_model_version_tag(name, version, "gate", verdict)
        client.set_model_version_tag(name, version, "gate_reason", why)
    _point(client, name, CHAMPION, previous.version)
    _point(client, name, PREVIOUS, champion.version)
    return Verdict(model=name, version=int(previous.version), promoted=True, reason=reason)


def _unseen(store: MlflowStore, name: str) -> list[int]:
    """The versions that the gate is not done with; the challenger where it has judged all."""
    waiting = [
        int(row["version"])
        for row in list_versions(store, name)
        if row["tags"].get("gate") in (None, PASSED)
    ]
    if waiting:
        return waiting
    challenger = version_at(store, name, CHALLENGER)
    if challenger is None:
        raise RegistryError(f"{name} has no version; train one first")
    return [int(challenger.version)]


def _point(client: MlflowClient, name: str, alias: str, version: str) -> None:
    """Let an alias name a version.

    Two heads that are registered at one moment both make the alias; MLflow looks for it and
    then inserts it, so that one of them fails, and finds it when it tries again.
    """
    for left in reversed(range(_ALIAS_TRIES)):
        try:
            client.set_registered_model_alias(name, alias, version)
        except MlflowException:
            if not left:
                raise
        else:
            return


def version_at(store: MlflowStore, name: str, alias: str) -> ModelVersion | None:
    """The version that bears an alias, if any.

    Raises:
        TransientError: The registry does not answer, which is not the same as having none.
    """
    try:
        return store.client().get_model_version_by_alias(name, alias)
    except MlflowException as err:
        if not is_missing(err):
            raise TransientError(f"{store.shown}: {store.masked(err)}") from err
        return None


def has_version(store: MlflowStore, name: str, number: int) -> bool:
    """Whether a version is (still) in the registry."""
    try:
        _version(store, name, number)
    except RegistryError:
        return False
    return True


def list_versions(store: MlflowStore, name: str | None = None) -> list[dict[str, Any]]:
    """Every version with its aliases, tags and verdict, the latest first.

    Raises:
        TransientError: The registry does not answer.
    """
    client = store.client()
    wanted = None if name is None else f"name = '{name}'"
    found = []
    with answering(store):
        for model in _all(client.search_registered_models, wanted):
            aliases: dict[str, list[str]] = {}
            for alias, version in model.aliases.items():
                aliases.setdefault(str(version), []).append(alias)
            found += [
                {
                    "model": model.name,
                    "version": int(version.version),
                    "aliases": sorted(aliases.get(str(version.version), [])),
                    "run_id": version.run_id,
                    "tags": dict(version.tags),
                }
                for version in _all(client.search_model_versions, f"name = '{model.name}'")
            ]
    return sorted(found, key=lambda row: (row["model"], -row["version"]))


def _all(search: Callable[..., Any], condition: str | None) -> Iterator[Any]:
    """What a search finds, page after page."""
    page = search(condition)
    yield from page
    while page.token:
        page = search(condition, page_token=page.token)
        yield from page


def _version(store: MlflowStore, name: str, number: int) -> ModelVersion:
    try:
        return store.client().get_model_version(name, str(number))
    except MlflowException as err:
        if not is_missing(err):
            raise TransientError(f"{store.shown}: {store.masked(err)}") from err
        raise RegistryError(f"no version {number} of {name} at {store.shown}") from err


def _log_model(client: MlflowClient, run_id: str, model: Mapping[str, Any]) -> LoggedModel:
    """Write a model among a run's artifacts.

    `mlflow.pyfunc.log_model` would load the whole model, encoder and all, to try its input
    example, and end the run.
    """
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
    with tempfile.TemporaryDirectory() as folder:
        try:
            mlflow.pyfunc.save_model(Path(folder) / "model", mlflow_model=described, **model)
            client.log_model_artifacts(logged.model_id, str(Path(folder) / "model"))
        except BaseException:
            client.finalize_logged_model(logged.model_id, "FAILED")
            raise
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return client.finalize_logged_model(logged.model_id, "READY")
