"""Reading the data of a report from the ledger, MLflow and the embedding sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pandas as pd

from coinml.audit.run_audit import latest_audit
from coinml.data.records import Dataset, Extent, Target
from coinml.data.targets import domains_of_classes
from coinml.embedding_sets import EmbeddingSet, list_sets
from coinml.embedding_sets.spec import SetSpec
from coinml.errors import CoinmlError, InvalidInputError
from coinml.ledger import Ledger, LedgerRow, Status
from coinml.registry.versions import CHALLENGER, CHAMPION, list_versions
from coinml.runtime.settings import YOUTUBE
from coinml.tracking.compare_runs import RunComparison, compare_runs
from coinml.tracking.metric_names import own_metrics
from coinml.tracking.mlflow_store import MlflowStore
from coinml.training.train_head import model_name
from coinml.training.training_data import load_training_data

if TYPE_CHECKING:
    from mlflow.entities import Run

_MOST_HEADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadView:
    """One registered version and its run.

    Attributes:
        version: Number of the version.
        aliases: Its aliases in the registry.
        name: The kind of head ("mlp").
        run_id: Id of its MLflow run.
        metrics: Final metrics of the run.
        params: Parameters of the run.
        tags: Tags of the version.
        history: One row per epoch (`step` and a column per metric); empty without epochs.
    """

    version: int
    aliases: Sequence[str]
    name: str
    run_id: str
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    history: pd.DataFrame

    @property
    def title(self) -> str:
        """Head and version, for headings and legends."""
        return f"{self.name} (version {self.version})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """The data of one page.

    Attributes:
        dataset: The dataset, or the selection of it, that the page is about.
        model: Name of the registered model.
        made_at: When the data were read.
        status: Status of the collection.
        ledger_digest: Digest of the ledger's content at that time.
        heads: The registered versions that are shown: champion, challenger, and the latest of
            every other kind of head, the champion first. Each has its run.
        gone: Versions that would be shown, but whose runs are no longer in MLflow; rows of
            `list_versions`.
        predictions: Predictions of each head, `video_id, split, label, predicted, score`, by its
            version; without those that are gone.
        audit: The tables of the last audit, by name; empty without one.
        strips: Film strip (JPEG) of some videos or segments, by id.
        comparison: Comparison of the first two heads on test; None with fewer than two.
        domains: Domain by class, if known and unless the classes are the domains.
        spec: Spec of the embedding set that the map shows; None without one.
        table: As `embedding_sets.table.build_table` returns it; None without a set.
        videos: The ledger's row of each video, by id.
        links: URL of each video at its source or of its local file, by id.
        missing: What the page cannot show, and why.
    """

    dataset: Dataset
    model: str
    made_at: datetime
    status: Status
    ledger_digest: str
    heads: Sequence[HeadView]
    predictions: Mapping[int, pd.DataFrame]
    comparison: RunComparison | None
    domains: Mapping[str, str]
    spec: SetSpec | None
    table: pd.DataFrame | None
    videos: Mapping[str, LedgerRow]
    links: Mapping[str, str]
    missing: Sequence[str]
    gone: Sequence[Mapping[str, Any]] = ()
    audit: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    strips: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def extent(self) -> Extent:
        """The part of a video that the shown set has."""
        extent: Any = "video" if self.spec is None else self.spec.extent
        return extent  # type: ignore[no-any-return]


def gather(
    dataset: Dataset,
    *,
    store: MlflowStore,
    ledger: Ledger,
    embeddings_root: str,
    target: Target = "task",
    source: str | None = YOUTUBE,
) -> ReportData:
    """Read everything that exists; what does not exist yet is named in `missing`.

    Args:
        dataset: The dataset that the page is about.
        store: Where the runs are.
        ledger: Where the state of each video is.
        embeddings_root: Folder or fsspec URL of the embedding sets.
        target: The target of the heads.
        source: URL template with `{id}` for the links; None links to the local files. With the
            default, a video that came from another site is linked there.

    Raises:
        InvalidInputError: The ledger does not know the dataset.
    """
    missing: list[str] = []
    model = model_name(dataset.name, target)
    status = ledger.status(dataset.name)
    rows = {row.video_id: row for row in ledger.rows_of(dataset)}
    heads, gone = _heads(store, model)
    for row in gone:
        run_id, what = row["run_id"], ", ".join([_kind(row), *row["aliases"]])
        why = f"run gone; MLflow has no run {run_id!r}"
        missing.append(
            f"version {row['version']} ({what}): "
            f"{why if run_id else 'it was registered without a run'}"
        )
    predictions, comparison = {}, None
    for head in heads:
        try:
            predictions[head.version] = store.read_table(head.run_id, "predictions")
        except InvalidInputError as err:
            missing.append(f"the predictions of {head.title} are gone: {err}")
    if not heads and not gone:
        missing.append(f"{model} has no version yet: train first")
    if len(heads) > 1:
        try:
            comparison = compare_runs(store, heads[0].run_id, heads[1].run_id)
        except InvalidInputError as err:
            missing.append(f"the heads cannot be compared: {err}")
    embedding_set = _shown_set(embeddings_root, dataset.name, target, heads, missing)
    table = None
    if embedding_set is not None:
        table = _table(embedding_set, dataset, target, ledger, missing)
    return ReportData(
        dataset=dataset,
        model=model,
        made_at=datetime.now(UTC),
        status=status,
        ledger_digest=ledger.digest(dataset.name),
        heads=heads,
        predictions=predictions,
        comparison=comparison,
        domains=domains_of_classes(dataset.videos, target=target),
        spec=None if embedding_set is None else embedding_set.spec,
        table=table,
        videos=rows,
        links={row.video_id: _link(row, source) for row in rows.values()},
        missing=missing,
        gone=gone,
        audit=latest_audit(store, model),
    )


def _heads(store: MlflowStore, model: str) -> tuple[list[HeadView], list[dict[str, Any]]]:
    """Champion, challenger, then the latest version of every other kind of head; at most eight.

    Returns:
        The heads, and the versions before them whose runs are gone.
    """
    versions = list_versions(store, model)
    ranked = sorted(
        versions,
        key=lambda row: (
            CHAMPION not in row["aliases"],
            CHALLENGER not in row["aliases"],
            -row["version"],
        ),
    )
    shown: list[HeadView] = []
    gone: list[dict[str, Any]] = []
    for row in ranked:
        if len(shown) == _MOST_HEADS:
            break
        if row["aliases"] or _kind(row) not in {head.name for head in shown}:
            try:
                shown.append(_view(store, row))
            except InvalidInputError:
                # Deleted for good, as by `mlflow gc`, or registered without one.
                gone.append(row)
    return shown, gone


def _kind(row: Mapping[str, Any]) -> str:
    return str(row["tags"].get("head", "head"))


def _view(store: MlflowStore, row: Mapping[str, Any]) -> HeadView:
    run: Run = store.read_run(row["run_id"] or "")
    return HeadView(
        version=row["version"],
        aliases=row["aliases"],
        name=_kind(row),
        run_id=row["run_id"],
        metrics=own_metrics(run.data.metrics),
        params=dict(run.data.params),
        # A version of an earlier coinml has the tags of its run itself.
        tags={**run.data.tags, **row["tags"]},
        history=store.read_history(row["run_id"]),
    )


def _shown_set(
    root: str, dataset: str, target: Target, heads: Sequence[HeadView], missing: list[str]
) -> EmbeddingSet | None:
    """The set that the first head was trained on, or else the newest."""
    for head in heads[:1]:
        fingerprint = head.tags.get("set_fingerprint", "")
        try:
            return EmbeddingSet.open(root, dataset, fingerprint=fingerprint)
        except InvalidInputError:
            missing.append(
                f"embedding set {fingerprint}, which {head.title} was trained on, is not at {root}"
            )
    found = [
        one
        for one in list_sets(root, dataset)
        if (one.spec.extent == "segments") == (target == "step")
    ]
    if not found:
        missing.append(f"no embedding set of {dataset} at {root}: embed first")
    return found[-1] if found else None


def _table(
    embedding_set: EmbeddingSet,
    dataset: Dataset,
    target: Target,
    ledger: Ledger,
    missing: list[str],
) -> pd.DataFrame | None:
    try:
        return load_training_data(dataset, embedding_set, ledger, target=target).table
    except CoinmlError as err:
        missing.append(f"no map of the embeddings: {err}")
        return None


def _link(row: LedgerRow, source: str | None) -> str:
    """URL of a video at its source, or of its local file."""
    if source == YOUTUBE and row.url is not None and row.url.startswith(("http://", "https://")):
        return row.url
    if source is not None and row.origin != "in_place":
        return source.replace("{id}", quote(row.video_id, safe=""))
    return Path(row.path).as_uri() if row.path else ""
