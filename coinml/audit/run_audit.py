"""An audit of a dataset: its tables, its pictures, and the MLflow run that keeps them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from coinml.audit.labels import doubtful_labels
from coinml.audit.out_of_fold import out_of_fold
from coinml.audit.vectors import clip_spread, near_duplicates, outliers
from coinml.data.corrections import Correction
from coinml.data.records import Dataset, Target
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.table import feature_columns, ids_digest, sample_ids, table_digest
from coinml.errors import InvalidInputError
from coinml.figures.film_strips import film_sheet
from coinml.ledger import DOWNLOADED, Ledger
from coinml.media.film_strips import FilmStrip, film_strips
from coinml.tracking.mlflow_store import MlflowStore
from coinml.training.train_head import model_name
from coinml.training.training_data import TrainingData, load_training_data

TABLES = ("suspects", "outliers", "duplicates", "stills")
KIND = {"kind": "audit"}
"""Tag of an audit's run."""

_LOW_SPREAD = 0.25
"""Videos whose clips differ less than this share of the median are looked at: they may be still."""

_MOST_LOOKED_AT = 500
_MOST_PICTURES = 24


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Audit:
    """What an audit found.

    Attributes:
        suspects: Videos whose label is probably wrong, as `labels.doubtful_labels` returns them.
        outliers: As `vectors.outliers` returns them.
        duplicates: As `vectors.near_duplicates` returns them.
        stills: `video_id, split, label, still, black`: videos in which nothing moves or is seen.
        strips: Film strips of the videos in these tables, by id.
        videos: Number of videos (or segments) that were audited.
        notes: What was not audited and why, a sentence each.
    """

    suspects: pd.DataFrame
    outliers: pd.DataFrame
    duplicates: pd.DataFrame
    stills: pd.DataFrame
    strips: Mapping[str, FilmStrip]
    videos: int
    notes: tuple[str, ...] = ()

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables by name."""
        return {name: getattr(self, name) for name in TABLES}

    def corrections(self, who: str) -> list[Correction]:
        """The suspects of train and val as corrections, for a person to check."""
        return [
            Correction(
                video_id=str(row["video_id"]),
                old=str(row["label"]),
                new=str(row["suggested"]),
                who=who,
                why=f"proposed: {row['suggested']} {row['suggested_probability']:.3f}, "
                f"{row['label']} {row['label_probability']:.3f}",
            )
            for row in self.suspects.to_dict(orient="records")
            if row["split"] != "test"
        ]


def audit_set(
    dataset: Dataset,
    embedding_set: EmbeddingSet,
    ledger: Ledger,
    store: MlflowStore,
    *,
    target: Target = "task",
    seed: int = 0,
    tick: Callable[[], None] | None = None,
) -> tuple[Audit, str]:
    """Audit the videos of a dataset that are in a set; what was found, and the run that has it.

    Args:
        dataset: The videos, with labels and splits.
        embedding_set: Their embeddings.
        ledger: Says where their files are.
        store: Where the run goes, in the experiment of the dataset's heads.
        target: Whose labels.
        seed: Seed of the folds.
        tick: Called after each video whose frames were read.

    Raises:
        InvalidInputError: None of the videos is in the set.
    """
    data = load_training_data(dataset, embedding_set, ledger, target=target, with_clips=True)
    rows = ledger.rows_of(dataset, state=DOWNLOADED)
    paths = {row.video_id: row.path for row in rows if row.path}
    found = audit(data, paths, seed=seed, tick=tick)
    return found, log_audit(found, data, store, model_name(dataset.name, target))


def audit(
    data: TrainingData,
    paths: Mapping[str, str],
    *,
    seed: int = 0,
    tick: Callable[[], None] | None = None,
) -> Audit:
    """Look for doubtful labels, outliers, near-duplicates and stills on all sides of the split.

    Args:
        data: The embeddings with their labels; with clips, or stills are not looked for.
        paths: The file of each video, for the pictures.
        seed: Seed of the folds.
        tick: Called after each video whose frames were read.
    """
    table = data.table
    notes: list[str] = []
    suspects = _suspects(data, seed, notes)
    strange = outliers(table)
    pairs = near_duplicates(table, data.sha256s)
    candidates = _still_candidates(data, notes)
    shown = [
        *suspects["video_id"][:_MOST_PICTURES],
        *strange["video_id"][:_MOST_PICTURES],
        *pairs["video_id"][: _MOST_PICTURES // 2],
        *pairs["twin_id"][: _MOST_PICTURES // 2],
    ]
    of_video = dict(zip(sample_ids(table), table["video_id"], strict=True))
    wanted = [name for name in dict.fromkeys([*candidates, *shown]) if of_video[name] in paths]
    spans = {one.sample_id: one.span for one in data.examples}
    strips = dict(
        film_strips({name: paths[of_video[name]] for name in wanted}, spans=spans, tick=tick)
    )
    rows = table.assign(video_id=sample_ids(table))[["video_id", "split", "label"]]
    seen = rows[rows["video_id"].isin(candidates)]
    looks = [strips.get(name, FilmStrip()) for name in seen["video_id"]]
    stills = seen.assign(
        still=[strip.still for strip in looks], black=[strip.black for strip in looks]
    )
    return Audit(
        suspects=suspects,
        outliers=strange,
        duplicates=pairs,
        stills=stills[stills["still"] | stills["black"]].reset_index(drop=True),
        strips=strips,
        videos=len(table),
        notes=tuple(notes),
    )


def log_audit(found: Audit, data: TrainingData, store: MlflowStore, experiment: str) -> str:
    """Log an audit as an MLflow run with tables and sheets of pictures; the run's id.

    Args:
        found: The audit.
        data: What was audited.
        store: Where the run goes.
        experiment: Name of the experiment: that of the dataset's heads.
    """
    tags = {
        **KIND,
        "dataset": data.dataset.name,
        "target": data.target,
        "set_fingerprint": data.spec.fingerprint,
        "ledger_digest": data.ledger_digest,
        "table_digest": table_digest(data.table),
        "ids_digest": ids_digest(sample_ids(data.table)),
    }
    with store.run(experiment, f"audit of {found.videos:,} videos", tags=tags) as log:
        log.metrics({f"audit_{name}": float(len(table)) for name, table in found.tables.items()})
        log.metrics({"audit_videos": float(found.videos)})
        for name, table in found.tables.items():
            log.table(name, table)
            strips = [
                (_caption(name, row), found.strips[row["video_id"]].jpeg)
                for row in table.head(_MOST_PICTURES).to_dict(orient="records")
                if row["video_id"] in found.strips
            ]
            if strips:
                log.figure(name, film_sheet(strips, f"{name} of {data.dataset.name}"))
        return log.run_id


def latest_audit(store: MlflowStore, experiment: str) -> dict[str, pd.DataFrame]:
    """The tables of the last audit of a dataset, by name; empty without one."""
    for run_id in store.find_runs(experiment, KIND)[:1]:
        try:
            return {name: store.read_table(run_id, name) for name in TABLES}
        except InvalidInputError:
            return {}
    return {}


def _suspects(data: TrainingData, seed: int, notes: list[str]) -> pd.DataFrame:
    """Doubtful labels among the classes that have two videos or more."""
    table = data.table
    videos = table.groupby("label")["video_id"].nunique()
    single = sorted(videos.index[videos < 2])
    if single:
        notes.append(f"labels of classes with one video are not audited: {', '.join(single[:10])}")
    kept = table[~table["label"].isin(single)].reset_index(drop=True)
    if kept["label"].nunique() < 2:
        notes.append("labels are not audited: that needs two classes with two videos each")
        return doubtful_labels(kept.head(0), np.zeros((0, 1)), np.zeros(0, dtype=np.int64))
    classes = {name: place for place, name in enumerate(sorted(set(kept["label"])))}
    y = kept["label"].map(classes).to_numpy(dtype=np.int64)
    x = kept[feature_columns(kept)].to_numpy(dtype=np.float32)
    return doubtful_labels(kept, out_of_fold(x, y, list(kept["video_id"]), seed=seed), y)


def _still_candidates(data: TrainingData, notes: list[str]) -> list[str]:
    """Ids of the videos whose clips are nearly equal, at most as many as can be looked at."""
    names = set(sample_ids(data.table))
    clips = {name: part for name, part in (data.clips or {}).items() if name in names}
    spread = clip_spread(clips)
    if not len(spread):
        notes.append("stills are not looked for: the set has no videos with two clips or more")
    low = spread[spread < _LOW_SPREAD].sort_values()
    if len(low) > _MOST_LOOKED_AT:
        notes.append(
            f"of {len(low):,} videos whose clips are nearly equal, the {_MOST_LOOKED_AT} most "
            "equal are looked at"
        )
    return [str(name) for name in low.index[:_MOST_LOOKED_AT]]


def _caption(table: str, row: Mapping[Any, Any]) -> str:
    text = f"{row['video_id']} · {row['split']} · {row['label']}"
    if table == "suspects":
        return f"{text} → {row['suggested']} ({row['suggested_probability']:.2f})"
    return f"{text} = {row['twin_id']}" if table == "duplicates" else text
