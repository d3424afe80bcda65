"""Which videos a run is about."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from coinml.data.annotations import (
    COIN,
    FOLDER_PREFIX,
    Stamp,
    annotations_stamp,
    is_label_table,
    load_dataset,
)
from coinml.data.records import Dataset

MINI = "mini"


class Selection(BaseModel):
    """A dataset, or a part of one."""

    # A model and not plain parameters, so that forms and help texts are made from these fields.
    model_config = ConfigDict(frozen=True, extra="forbid", title="Dataset")

    dataset: str = Field(
        default=MINI,
        description="`mini`, a COIN-layout JSON file, a CSV file (`path,label` and perhaps "
        "`split,group`), or `folder:DIR` (one folder per class).",
    )
    name: str | None = Field(
        default=None,
        description="Dataset name; by default `coin` for a JSON, the file's for a CSV, DIR's for a "
        "folder.",
    )
    classes: tuple[str, ...] = Field(default=(), description="Only these classes; by default all.")
    limit: int | None = Field(
        default=None, ge=1, description="Only this many videos, stratified by class and split."
    )
    group: str | None = Field(
        default=None,
        description="Regular expression for class folders: files whose names match with the same "
        "text stay on one side of the split, and intervals and tests count them as one.",
    )
    split_seed: int = Field(
        default=0,
        description="Seed of the cut: of val, and for class folders of test too.",
    )

    @property
    def is_mini(self) -> bool:
        """Whether it is the miniature, which coinml draws itself."""
        return self.dataset == MINI

    @property
    def is_folder(self) -> bool:
        """Whether the videos are files on this machine already."""
        return self.dataset.startswith(FOLDER_PREFIX) or is_label_table(self.dataset)

    @property
    def title(self) -> str:
        """Its name in lists of runs: the dataset's name, without reading the dataset."""
        if self.name:
            return self.name
        if self.is_mini:
            return MINI
        if self.is_folder:
            place = Path(self.dataset.removeprefix(FOLDER_PREFIX)).resolve()
            return place.stem if is_label_table(self.dataset) else place.name
        return COIN

    def load(self, data_dir: Path) -> Dataset:
        """Read its annotations; those of `mini` are written below `data_dir`, without its videos.

        A file is read once per process until it, its taxonomy or its corrections change, since a
        flow and its tasks load the same selection. Own files are listed every time: they are the
        dataset. Their split is recorded below `data_dir`, so that a video keeps its side when they
        become more.

        Raises:
            InvalidInputError: As `annotations.load_dataset`.
        """
        if self.is_folder:
            return load_dataset(
                self.dataset,
                name=self.name,
                classes=self.classes,
                limit=self.limit,
                group=self.group,
                seed=self.split_seed,
                splits_dir=data_dir / "splits",
            )
        path = self.dataset
        if self.is_mini:
            from coinml.miniature.dataset import write_annotations

            path = str(write_annotations(miniature_dir(data_dir)))
        return _read_once(self, path, annotations_stamp(Path(path).expanduser()))


@lru_cache(maxsize=4)
def _read_once(selection: Selection, path: str, _stamp: Stamp) -> Dataset:
    return load_dataset(
        path,
        name=selection.name or (MINI if selection.is_mini else None),
        classes=selection.classes,
        limit=selection.limit,
        group=selection.group,
        seed=selection.split_seed,
    )


def miniature_dir(data_dir: Path) -> Path:
    """The folder in which the miniature is drawn and from which its local server serves it."""
    return data_dir / "miniature"
