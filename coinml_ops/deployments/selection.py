"""The dataset of the scheduled deployments, as their parameter `selection`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coinml.data.annotations import FOLDER_PREFIX
from coinml.runtime.settings import Settings
from coinml.selection import MINI, Selection
from coinml_ops.deployments.apply import read_file
from coinml_ops.deployments.chosen import Chosen

WITH_OWN_DATASET = {"mini", "coin"}
"""Deployments that are not scheduled and have a dataset of their own."""


def absolute_dataset(dataset: str) -> str:
    """A dataset option with an absolute path in it, valid in any working folder."""
    if dataset == MINI:
        return dataset
    prefix = FOLDER_PREFIX if dataset.startswith(FOLDER_PREFIX) else ""
    return prefix + str(Path(dataset.removeprefix(prefix)).expanduser().resolve())


def absolute_encoder(encoder: str) -> str:
    """An encoder option: a folder's with its absolute path, a hub id as it is."""
    folder = Path(encoder).expanduser()
    return str(folder.resolve()) if folder.is_dir() else encoder


def configured_content(chosen: Chosen, settings: Settings) -> dict[str, Any]:
    """The content of `prefect.yaml` with an operator's choices; the dataset is not read.

    Raises:
        LocalError: The installation has no such file.
        InvalidInputError: A schedule is for a deployment that has none.
    """
    content = read_file()
    chosen.put_into(content)
    selection = scheduled_selection(chosen.dataset, chosen.name, settings, check=False)
    set_selection(content, selection, settings)
    return content


def scheduled_selection(
    dataset: str | None, name: str | None, settings: Settings, *, check: bool = True
) -> dict[str, Any]:
    """The parameter `selection` of the scheduled deployments, with absolute paths.

    Args:
        dataset: As `--dataset` takes it; None: `COIN.json` in the data folder if it exists, else
            the miniature.
        name: The dataset's name, if it is not the default one.
        settings: This machine's.
        check: Read the dataset.

    Raises:
        InvalidInputError: The dataset cannot be read.
    """
    if dataset is None:
        coin = settings.data_dir / "COIN.json"
        dataset = str(coin) if coin.is_file() else MINI
    dataset = absolute_dataset(dataset)
    selection = Selection(dataset=dataset, name=name)
    if check and not selection.is_mini:
        # An error appears now, not in the first scheduled run. The miniature is drawn by that run.
        selection.load(settings.data_dir)
    return selection.model_dump(mode="json", exclude_defaults=True) | {"dataset": dataset}


def set_selection(content: dict[str, Any], selection: dict[str, Any], settings: Settings) -> None:
    """Put a selection into the deployments of `prefect.yaml`'s content.

    `pipeline/mini` keeps the miniature. `pipeline/coin` gets the selection if it is a JSON file,
    else the path where COIN's file belongs.
    """
    coin = (
        selection
        if selection["dataset"].endswith(".json")
        else {"dataset": str(settings.data_dir / "COIN.json")}
    )
    for config in content["deployments"]:
        if "selection" not in config["parameters"]:
            continue
        if config["name"] not in WITH_OWN_DATASET:
            config["parameters"]["selection"] = selection
        elif config["name"] == "coin":
            config["parameters"]["selection"] = coin
