"""Which videos a run is about."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from coinml.data.annotations import COIN, FOLDER_PREFIX, load_dataset
from coinml.data.records import Dataset

MINI = "mini"


class Selection(BaseModel):
    """A dataset, or a part of one."""

    # A model and not plain parameters, so that forms and help texts are made from these fields.
    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str = Field(
        default=MINI,
        description="`mini`, a COIN-layout JSON file, or `folder:DIR` with one folder a class.",
    )
    name: str | None = Field(
        default=None, description="Dataset name; `coin` for a JSON, DIR's for a folder."
    )
    classes: tuple[str, ...] = Field(default=(), description="Only these classes; empty for all.")
    limit: int | None = Field(
        default=None, ge=1, description="So many videos, stratified by class and split."
    )
    group: str | None = Field(
        default=None,
        description="Regular expression; files whose names match alike stay on one side.",
    )

    @property
    def is_mini(self) -> bool:
        """Whether it is the dataset that is drawn here."""
        return self.dataset == MINI

    @property
    def is_folder(self) -> bool:
        """Whether the videos are files here already."""
        return self.dataset.startswith(FOLDER_PREFIX)

    @property
    def title(self) -> str:
        """What it is called in lists: a file's path says less than the dataset's name."""
        if self.name:
            return self.name
        if self.is_mini:
            return MINI
        if self.is_folder:
            return Path(self.dataset.removeprefix(FOLDER_PREFIX)).resolve().name
        return COIN

    def load(self, data_dir: Path) -> Dataset:
        """Read its annotations; `mini` is drawn below `data_dir` if it is not there.

        Raises:
            InvalidInputError: As `annotations.load_dataset`.
        """
        ref, name = self.dataset, self.name
        if self.is_mini:
            from coinml.miniature.dataset import draw_dataset

            ref, name = str(draw_dataset(miniature_dir(data_dir))), name or MINI
        return load_dataset(
            ref, name=name, classes=self.classes, limit=self.limit, group=self.group
        )


def miniature_dir(data_dir: Path) -> Path:
    """Where the miniature is drawn: what it is served from, not where it is collected."""
    return data_dir / "miniature"
