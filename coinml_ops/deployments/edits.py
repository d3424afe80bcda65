"""Keeps what a person has edited on the server when the deployments are applied again.

What was applied last is recorded on the server, in variables. A field that differs from it there
was edited by a person, and stays; a field that does not follows prefect.yaml and the choices.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

RECORD = "coinml_applied"
"""Beginning of the names of the variables with what was applied last, one a deployment."""

Path = tuple[str, ...]
Fields = dict[Path, Any]
_ABSENT = object()
_EDITED_BEFORE_RECORDS = ("parameters", "schedules", "concurrency_limit")
"""Without a record, which of them a person has edited is unknown: all are taken for edits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A field that was edited on the server.

    Attributes:
        deployment: `<flow>/<name>`.
        field: The field, with dots.
        server: Its value on the server as JSON, or "nothing".
        here: That of prefect.yaml and the choices.
        kept: Whether the server's stays.
    """

    deployment: str
    field: str
    server: str
    here: str
    kept: bool

    def __str__(self) -> str:
        what = f"{self.deployment}: {self.field}"
        if self.kept:
            return f"{what} stays {self.server}, as edited on the server, not {self.here}"
        return f"{what} is {self.here} again; {self.server} was edited on the server"


def read_record(client: SyncPrefectClient, name: str) -> dict[str, str] | None:
    """What was applied last to a deployment, by `digests`; None if nothing is recorded."""
    variable = client.read_variable_by_name(variable_of(name))
    value = None if variable is None else variable.value
    return value if isinstance(value, dict) else None


def write_record(client: SyncPrefectClient, name: str, record: dict[str, str]) -> None:
    """Replace a deployment's record."""
    from prefect.client.schemas.actions import VariableCreate, VariableUpdate

    variable = variable_of(name)
    if client.read_variable_by_name(variable) is None:
        client.create_variable(VariableCreate(name=variable, value=record, tags=["coinml"]))
    else:
        client.update_variable(VariableUpdate(name=variable, value=record, tags=["coinml"]))


def variable_of(name: str) -> str:
    """The variable with a deployment's record."""
    return f"{RECORD}_{name.replace('/', '_').replace('-', '_')}"


def digests(fields: Mapping[str, Any]) -> dict[str, str]:
    """A digest of each field's value: a variable of Prefect holds less than 5,000 characters."""
    return {".".join(path): _digest(value) for path, value in _flat(fields).items()}


def of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a deployment of prefect.yaml that a person can edit on the server."""
    pool = config["work_pool"]
    fields = {
        "description": config["description"],
        "tags": sorted(config["tags"]),
        "parameters": config["parameters"],
        "schedules": {
            one["slug"]: {key: value for key, value in one.items() if key not in ("slug", "active")}
            for one in config.get("schedules", ())
        },
        "concurrency_limit": config["concurrency_limit"],
        "queue": pool["work_queue_name"],
        "job_variables": pool["job_variables"],
    }
    return dict(json.loads(json.dumps(fields)))


def of_server(deployment: DeploymentResponse) -> dict[str, Any]:
    """The same fields of a deployment on the server."""
    limit, options = deployment.global_concurrency_limit, deployment.concurrency_options
    concurrency: dict[str, Any] = {}
    if limit is not None:
        concurrency["limit"] = limit.limit
        if options is not None:
            concurrency["collision_strategy"] = options.collision_strategy.value
    return {
        "description": deployment.description,
        "tags": sorted(deployment.tags),
        "parameters": deployment.parameters,
        "schedules": {slug_of(one): _schedule(one) for one in deployment.schedules},
        "concurrency_limit": concurrency,
        "queue": deployment.work_queue_name,
        "job_variables": deployment.job_variables,
    }


def slug_of(schedule: Any) -> str:
    """A schedule's slug; one that a person has added may have none, and gets one."""
    return str(schedule.slug or f"added-{str(schedule.id)[:8]}")


def keep_edits(
    config: dict[str, Any],
    server: Mapping[str, Any],
    *,
    name: str,
    last: Mapping[str, str] | None,
    before: Mapping[str, Any],
    reset: bool,
) -> list[Edit]:
    """Put what was edited on the server into a deployment's configuration.

    Args:
        config: The deployment in prefect.yaml's content, with the choices.
        server: Its fields on the server.
        name: Its full name.
        last: `digests` of its fields as applied last; None if there is no record.
        before: As `of_config`, with the choices before this command: what the command has changed
            is applied whatever is on the server.
        reset: Keep nothing.

    Returns:
        Each edit, kept or not.
    """
    here, there, was = _flat(of_config(config)), _flat(server), _flat(before)
    merged: Fields = {}
    edits = []
    for path in {**here, **there}:
        ours, theirs = here.get(path, _ABSENT), there.get(path, _ABSENT)
        taken = ours
        if ours != theirs and _is_edited(path, theirs, last):
            kept = not reset and ours == was.get(path, _ABSENT)
            taken = theirs if kept else ours
            edits.append(
                Edit(
                    deployment=name,
                    field=".".join(path),
                    server=_shown(theirs),
                    here=_shown(ours),
                    kept=kept,
                )
            )
        if taken is not _ABSENT:
            merged[path] = taken
    if any(edit.kept for edit in edits):
        _put(config, _nested(merged))
    return edits


def _is_edited(path: Path, theirs: Any, last: Mapping[str, str] | None) -> bool:
    if last is None:
        return theirs is not _ABSENT and path[0] in _EDITED_BEFORE_RECORDS
    return last.get(".".join(path)) != (None if theirs is _ABSENT else _digest(theirs))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _schedule(one: Any) -> dict[str, Any]:
    """A schedule on the server as prefect.yaml has it."""
    fields = one.schedule.model_dump(mode="json", exclude_none=True)
    if fields.get("day_or") is True:
        del fields["day_or"]
    if one.parameters:
        fields["parameters"] = one.parameters
    return dict(fields)


def _put(config: dict[str, Any], fields: Mapping[str, Any]) -> None:
    config["description"] = fields.get("description", "")
    config["tags"] = fields.get("tags", [])
    config["parameters"] = fields.get("parameters", {})
    config["schedules"] = [
        {"slug": slug, **schedule} for slug, schedule in fields.get("schedules", {}).items()
    ]
    config["concurrency_limit"] = fields.get("concurrency_limit")
    config["work_pool"] = {
        **config["work_pool"],
        "work_queue_name": fields.get("queue"),
        "job_variables": fields.get("job_variables", {}),
    }


def _flat(fields: Mapping[str, Any], above: Path = ()) -> Fields:
    """Nested mappings as one, from the path of keys to each value; lists are values."""
    found: Fields = {}
    for key, value in fields.items():
        if isinstance(value, Mapping):
            found |= _flat(value, (*above, key))
        else:
            found[(*above, key)] = value
    return found


def _nested(fields: Fields) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for (*above, key), value in fields.items():
        inner = whole
        for part in above:
            inner = inner.setdefault(part, {})
        inner[key] = value
    return whole


def _shown(value: Any) -> str:
    return "nothing" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
