"""Which fields of a deployment count as edited on the server, and what becomes of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from coinml.errors import InvalidInputError
from coinml_ops.deployments.apply import read_file
from coinml_ops.deployments.chosen import Chosen
from coinml_ops.deployments.edits import Edit, digests, keep_edits, of_config


def hourly(budget: int = 300) -> dict[str, Any]:
    config = copy.deepcopy(read_file()["deployments"][0])
    config["parameters"]["collection"] = {"budget": budget}
    return dict(config)


def kept(
    server: int, *, last: int | None, now: int = 300, before: int | None = None, reset: bool = False
) -> tuple[int, list[Edit]]:
    """The budget that is applied, and the edits, of a server with another one."""
    config = hourly(now)
    edits = keep_edits(
        config,
        of_config(hourly(server)),
        name="collect/hourly",
        last=None if last is None else digests(of_config(hourly(last))),
        before=of_config(hourly(now if before is None else before)),
        reset=reset,
    )
    return config["parameters"]["collection"]["budget"], edits


def test_a_field_follows_the_file_unless_a_person_edited_it() -> None:
    assert kept(300, last=300) == (300, [])
    # The file has changed since, the server has not.
    assert kept(200, last=200) == (300, [])
    budget, (edit,) = kept(11, last=300)
    assert (budget, edit.kept) == (11, True)
    assert str(edit) == (
        "collect/hourly: parameters.collection.budget stays 11, as edited on the server, not 300"
    )
    # Both have changed: only a command's own change wins.
    assert kept(11, last=200)[0] == 11
    budget, (edit,) = kept(11, last=200, before=200)
    assert (budget, edit.kept) == (300, False)
    assert kept(11, last=300, reset=True)[0] == 300
    # Without a record nobody knows who changed it.
    assert kept(11, last=None)[0] == 11


def test_an_absent_field_is_an_edit_only_where_it_was_applied() -> None:
    config, server = hourly(), of_config(hourly())
    del server["parameters"]["collection"]
    server["schedules"] = {}
    before = of_config(hourly())
    edits = keep_edits(
        config, server, name="collect/hourly", last=digests(before), before=before, reset=False
    )
    assert {edit.server for edit in edits} == {"nothing"}
    assert "collection" not in config["parameters"]
    assert config["schedules"] == []
    # What this version has and the one before had not.
    config = hourly()
    assert (
        keep_edits(config, server, name="collect/hourly", last=None, before=before, reset=False)
        == []
    )
    assert config["parameters"]["collection"] == {"budget": 300}


def test_the_name_of_another_dataset_is_not_kept() -> None:
    chosen = Chosen(dataset="/a.json", name="a", budget=3)
    assert chosen.with_options(dataset="/a.json").name == "a"
    other = chosen.with_options(dataset="/b.json")
    assert (other.name, other.budget) == (None, 3)
    assert chosen.with_options(dataset="/b.json", name="b").name == "b"


def test_a_cron_of_a_deployment_without_schedule_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"'pipeline/mini' is not a deployment with a sch"):
        Chosen(cron={"pipeline/mini": "1 * * * *"}).put_into(read_file())
