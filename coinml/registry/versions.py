"""The versions of a registered model, and the aliases that point at them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from coinml.data.names import listed
from coinml.errors import NoModelError, RegistryError, TransientError
from coinml.tracking.mlflow_errors import is_missing
from coinml.tracking.mlflow_store import MlflowStore

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
"""Aliases of a registered model: in use, a candidate for it, and in use before.

The challenger is the version registered last until the gate is asked, and then the best one that
it refused. It is never the champion.
"""

_ALIAS_TRIES = 5

logger = logging.getLogger(__name__)


def model_uri(name: str, alias: str = CHAMPION) -> str:
    """What `mlflow.pyfunc.load_model` takes."""
    return f"models:/{name}@{alias}"


def version_at(store: MlflowStore, name: str, alias: str) -> ModelVersion | None:
    """The version that an alias points at, if any.

    Raises:
        TransientError: The registry does not answer, which is not the same as having none.
    """
    try:
        return store.client().get_model_version_by_alias(name, alias)
    except MlflowException as err:
        if not is_missing(err):
            raise TransientError(f"{store.shown}: {store.masked(err)}") from err
        return None


def version_numbered(store: MlflowStore, name: str, number: int) -> ModelVersion:
    """A version by its number.

    Raises:
        NoModelError: There is no such version; the text says which there are.
        TransientError: The registry does not answer.
    """
    try:
        return store.client().get_model_version(name, str(number))
    except MlflowException as err:
        if not is_missing(err):
            raise TransientError(f"{store.shown}: {store.masked(err)}") from err
        versions = [str(row["version"]) for row in list_versions(store, name)]
        there = f"there are {listed(versions)}" if versions else "it has none: train one first"
        raise NoModelError(f"no version {number} of {name} at {store.shown}; {there}") from err


def has_version(store: MlflowStore, name: str, number: int, run_id: str | None = None) -> bool:
    """Whether a version is still in the registry, and is that of a run if one is given.

    The numbers of a model that was deleted and registered again begin at 1 again.
    """
    try:
        version = version_numbered(store, name, number)
    except RegistryError:
        return False
    return run_id is None or version.run_id == run_id


def list_versions(store: MlflowStore, name: str | None = None) -> list[dict[str, Any]]:
    """Every version (model, version, aliases, run_id, tags), the latest first.

    Raises:
        TransientError: The registry does not answer.
    """
    client = store.client()
    wanted = None if name is None else f"name = '{name}'"
    found = []
    with store.outages_as_transient():
        for model in all_results(client.search_registered_models, wanted):
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
                for version in all_results(client.search_model_versions, f"name = '{model.name}'")
            ]
    return sorted(found, key=lambda row: (row["model"], -row["version"]))


def point_alias(client: MlflowClient, name: str, alias: str, version: str) -> None:
    """Point an alias at a version.

    When two heads are registered at the same moment, both may create the alias; MLflow reads and
    then inserts, so one of them fails. It succeeds when it tries again.
    """
    for left in reversed(range(_ALIAS_TRIES)):
        try:
            client.set_registered_model_alias(name, alias, version)
        except MlflowException:
            if not left:
                raise
        else:
            return


def set_aside(client: MlflowClient, version: ModelVersion, names: Iterable[str]) -> None:
    """Remove some tags of a version; all tags that it has are in an artifact of its run first.

    The artifact is `decisions/version-<number>-<time>.json`. Without its run, the version keeps
    the tags.

    Args:
        client: MLflow's client.
        version: The version.
        names: The tags that are removed, where it has them.
    """
    present = [name for name in names if name in version.tags]
    if not present:
        return
    now = datetime.now(UTC)
    file = f"decisions/version-{version.version}-{now:%Y%m%dT%H%M%S%f}.json"
    content = {"version": int(version.version), "tags": dict(version.tags)}
    try:
        client.log_dict(str(version.run_id), content, file)
    except (MlflowException, OSError) as err:
        logger.warning("version %s keeps its earlier tags: %s", version.version, err)
        return
    for name in present:
        client.delete_model_version_tag(version.name, version.version, name)


def all_results(search: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Any]:
    """All results of a search by MLflow's client, page after page."""
    page = search(*arguments, **options)
    yield from page
    while page.token:
        page = search(*arguments, **options, page_token=page.token)
        yield from page
