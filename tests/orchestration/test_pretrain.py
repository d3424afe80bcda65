"""The flow `pretrain`: an encoder from the training videos, which `embed` takes; then continued."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coinml.embedding_sets.options import SetOptions
from coinml.errors import InvalidInputError
from coinml.pretraining.options import PretrainOptions
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml.tracking.mlflow_store import home_store
from flows.embed import embed
from flows.pretrain import pretrain


def test_an_encoder_is_pretrained_and_embeds(collected: Selection, small_encoder: Path) -> None:
    options = PretrainOptions(
        encoder=str(small_encoder), steps=2, batch_clips=4, crops=2, dtype="float32"
    )
    report = pretrain(collected, options)
    assert (report.steps, report.failed) == (2, {})
    place = Settings().data_dir / "pretrained" / "toy" / "toy-000002"
    assert report.checkpoint == str(place)
    assert report.run_id is not None
    assert home_store(Settings()).read_run(report.run_id).info.status == "FINISHED"
    again = pretrain(collected, options)
    assert (again.checkpoint, again.clips_per_s) == (report.checkpoint, None)
    summary = embed(collected, SetOptions(encoder=report.checkpoint, clips=1))
    parent = SetOptions(encoder=str(small_encoder), clips=1).spec("toy")
    assert summary.embedded == 24
    assert summary.fingerprint != parent.fingerprint
    record = json.loads((place / "training.json").read_text())
    assert record["recipe"]["videos"] == report.videos < 24
    with pytest.raises(InvalidInputError, match="choose another --out"):
        pretrain(collected, options.model_copy(update={"mask_ratio": 0.5}))
