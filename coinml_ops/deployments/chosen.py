"""What an operator has chosen for the deployments: `data/deployments.yaml`, over prefect.yaml.

`coinml up` and `coinml deploy` write their options into this file, so that the next call, the next
version and a restored home use them as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coinml.collection.sources import as_sources, check_folders, check_recordable
from coinml.errors import InvalidInputError
from coinml.runtime.atomic_files import write_whole

FILE = "deployments.yaml"
BY_HAND = "pipeline/mini"
"""It runs on the miniature with the tiny encoder, whatever was chosen."""

DOWNLOADS = {"collect": "collection", "reprocess": "collection", "pipeline": "collection"}
"""The parameter of each flow that says how videos are downloaded, and how many at most."""
RETRIES = {"reprobe": "download"}
"""The same of flows that always try all."""
EMBEDDED = ("embed", "train", "reprocess", "audit", "pipeline")
"""Flows with the parameter `set_options`."""
TRAINS = ("train", "reprocess")
"""Flows with the parameter `min_new`."""


class Chosen(BaseModel):
    """Choices for the scheduled deployments and `pipeline/coin`; None: as in prefect.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    dataset: str | None = Field(default=None, description="Their dataset, with an absolute path.")
    name: str | None = Field(default=None, description="The dataset's name.")
    source: tuple[str, ...] | None = Field(default=None, description="Where videos come from.")
    encoder: str | None = Field(default=None, description="Hub id or folder of the encoder.")
    budget: int | None = Field(default=None, ge=1, description="Videos that a run tries.")
    min_new: int | None = Field(
        default=None, ge=1, description="New videos after which heads are trained again."
    )
    cron: dict[str, str] = Field(
        default_factory=dict, description="Schedules by deployment, as `collect/hourly: 7 * * * *`."
    )

    def with_options(self, **given: Any) -> Chosen:
        """These choices with options of a command; None and empty ones change nothing.

        Raises:
            InvalidInputError: A value is not allowed, or a source is a folder that is not there.
        """
        news = {key: value for key, value in given.items() if value not in (None, (), {}, [])}
        if "cron" in news:
            news["cron"] = {**self.cron, **news["cron"]}
        known = self.model_dump(exclude_defaults=True)
        if news.get("dataset") not in (None, self.dataset):
            # The name was another dataset's: under it, the two would be mixed.
            known.pop("name", None)
        chosen = _checked({**known, **news}, where="")
        if "source" in news:
            # Only now: a folder in the file may be mounted later than `coinml up` runs.
            check_folders(chosen.source or ())
        return chosen

    def put_into(self, content: dict[str, Any]) -> None:
        """Put them, but for the dataset, into the deployments of prefect.yaml's content.

        Raises:
            InvalidInputError: A schedule is for a deployment that has none.
        """
        scheduled = {}
        for config in content["deployments"]:
            flow = flow_of(config)
            name = f"{flow}/{config['name']}"
            if len(config.get("schedules", ())) == 1:
                scheduled[name] = config["schedules"][0]
            if name == BY_HAND:
                continue
            parameters = config["parameters"]
            if flow in DOWNLOADS:
                _merge(parameters, DOWNLOADS[flow], source=self._source, budget=self.budget)
            if flow in RETRIES:
                _merge(parameters, RETRIES[flow], source=self._source)
            if flow in EMBEDDED:
                _merge(parameters, "set_options", encoder=self.encoder)
            if flow in TRAINS and self.min_new is not None:
                parameters["min_new"] = self.min_new
        for name, cron in self.cron.items():
            if name not in scheduled:
                raise InvalidInputError(
                    f"cron {name}={cron!r}: {name!r} is not a deployment with a schedule: one of "
                    f"{', '.join(scheduled)}"
                )
            scheduled[name]["cron"] = cron

    @property
    def _source(self) -> str | list[str] | None:
        if self.source is None:
            return None
        return self.source[0] if len(self.source) == 1 else list(self.source)


def read_chosen(data_dir: Path) -> Chosen:
    """The choices of a home; none yet: no choice.

    Raises:
        InvalidInputError: The file is not YAML, or has a field or value that is not allowed.
    """
    import yaml

    path = data_dir / FILE
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Chosen()
    except (OSError, UnicodeError, yaml.YAMLError) as err:
        raise InvalidInputError(f"{path} cannot be read: {err}") from err
    if content is not None and not isinstance(content, dict):
        raise InvalidInputError(f"{path}: {content!r} is no mapping of fields to values")
    return _checked(content or {}, where=f"{path}: ")


def write_chosen(data_dir: Path, chosen: Chosen) -> None:
    """Replace the file; an empty one is not made."""
    import yaml

    content = chosen.model_dump(mode="json", exclude_defaults=True)
    if content or (data_dir / FILE).exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        head = "# Over prefect.yaml; `coinml up` and `coinml deploy` write and apply it.\n"
        write_whole(data_dir / FILE, head + yaml.safe_dump(content, sort_keys=False))


def parse_cron(given: list[str]) -> dict[str, str]:
    """Options `DEPLOYMENT=CRON` as a mapping.

    Raises:
        InvalidInputError: One has another form.
    """
    found = {}
    for one in given:
        name, equals, cron = one.partition("=")
        if not (name and equals and cron):
            raise InvalidInputError(
                f"--cron {one!r}: it takes DEPLOYMENT=CRON, such as 'collect/hourly=7 */2 * * *'"
            )
        found[name.strip()] = cron.strip()
    return found


def flow_of(config: dict[str, Any]) -> str:
    """The flow of a deployment of prefect.yaml; it has the name of its file."""
    return Path(config["entrypoint"].split(":")[0]).stem


def _merge(parameters: dict[str, Any], name: str, **values: Any) -> None:
    news = {key: value for key, value in values.items() if value is not None}
    if news:
        parameters[name] = {**parameters.get(name, {}), **news}


def _checked(content: dict[str, Any], *, where: str) -> Chosen:
    if isinstance(content.get("source"), str):
        content = {**content, "source": [content["source"]]}
    try:
        chosen = Chosen.model_validate(content)
    except ValidationError as err:
        first = err.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise InvalidInputError(f"{where}{field}: {first['msg']}") from err
    _check_values(chosen, where)
    return chosen


def _check_values(chosen: Chosen, where: str) -> None:
    if chosen.source is not None:
        as_sources(chosen.source)
        check_recordable(chosen.source)
    if chosen.cron:
        from prefect.client.schemas.schedules import CronSchedule

        for name, cron in chosen.cron.items():
            try:
                CronSchedule(cron=cron)
            except ValidationError as err:
                raise InvalidInputError(
                    f"{where}cron {name}={cron!r}: not a cron expression of five fields"
                ) from err
