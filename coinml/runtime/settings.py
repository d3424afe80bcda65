"""The settings of this machine, read from the environment (`COINML_*`)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from coinml.errors import InvalidInputError
from coinml.runtime.addresses import Url
from coinml.runtime.home import default_home

YOUTUBE = "https://www.youtube.com/watch?v={id}"


class Settings(BaseSettings):
    """Every setting of this machine; the variable is `COINML_` and the name in capitals.

    Attributes:
        home: The folder of all state.
        ledger_url: SQLAlchemy URL of the ledger: SQLite for one host, PostgreSQL for several;
            never shown, since it may contain a password.
        embeddings_root: Folder or fsspec URL of the embedding sets.
        rate_per_hour: Videos requested per hour from a source that is not on loopback.
        rates_per_hour: The same by source, where one is to be asked at another rate.
        parallel: Concurrent downloads.
        cookies: Netscape cookies file for the source.
        proxy: Proxy URL for the source; never logged.
        ytdlp_extractor_args: Arguments for yt-dlp's extractors, e.g. PO tokens; never shown.
        bytes_per_s: Bandwidth limit of one download; None: no limit.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        InvalidInputError: A variable has a value that is not allowed; secret ones are not shown.
    """

    model_config = SettingsConfigDict(
        env_prefix="COINML_", extra="ignore", hide_input_in_errors=True
    )

    home: Path = Field(default_factory=default_home)
    ledger_url: Url = Field(default=Url(""), repr=False)
    embeddings_root: Url = Url("")
    rate_per_hour: float = Field(default=300, gt=0, allow_inf_nan=False)
    rates_per_hour: Annotated[dict[str, PositiveFloat], NoDecode] = Field(default_factory=dict)
    parallel: int = Field(default=8, ge=1)
    cookies: Path | None = None
    proxy: Url | None = Field(default=None, repr=False)
    ytdlp_extractor_args: str | None = Field(default=None, repr=False)
    bytes_per_s: int | None = Field(default=None, gt=0)
    device: str = "auto"

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as err:
            first = err.errors()[0]
            field, *inside = map(str, first["loc"])
            where = "".join(f"[{part!r}]" for part in inside)
            raise InvalidInputError(
                f"{self._given(field)}{where and f', at {where}'}: {first['msg']}"
            ) from None

    @classmethod
    def _given(cls, field: str) -> str:
        """The variable of a field and its value, unless that is secret."""
        name = f"COINML_{field.upper()}"
        value = os.environ.get(name)
        return name if value is None or not cls.model_fields[field].repr else f"{name}={value!r}"

    @field_validator("rates_per_hour", mode="before")
    @classmethod
    def _from_json(cls, rates: Any) -> Any:
        # pydantic-settings would parse it itself, with an error that does not say what is wrong.
        return json.loads(rates) if isinstance(rates, str) else rates

    def model_post_init(self, _context: object) -> None:
        """Make `home` absolute and derive unset locations from it."""
        self.home = self.home.expanduser().resolve()
        self.ledger_url = self.ledger_url or Url(f"sqlite:///{self.data_dir / 'ledger.db'}")
        self.embeddings_root = self.embeddings_root or Url(self.data_dir / "embeddings")

    @property
    def data_dir(self) -> Path:
        """Videos, embeddings, logs and the ledger."""
        return self.home / "data"

    def videos_dir(self, dataset: str) -> Path:
        """The folder of a dataset's collected files."""
        return self.data_dir / "videos" / dataset

    @property
    def logs_dir(self) -> Path:
        """The folder of log files."""
        return self.data_dir / "logs"

    @property
    def tracking_uri(self) -> Url:
        """MLflow's store: `MLFLOW_TRACKING_URI`, else `mlflow.db` below `home`."""
        named = os.environ.get("MLFLOW_TRACKING_URI")
        return Url(named or f"sqlite:///{self.home / 'mlflow.db'}")

    @property
    def artifact_root(self) -> Path:
        """Where MLflow's artifacts go when the store is local."""
        return self.home / "mlartifacts"
