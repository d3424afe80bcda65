"""Pre-training an encoder."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from coinml.embedding_sets.options import SetOptions
from coinml.ledger import Ledger
from coinml.pretraining.options import PretrainOptions
from coinml.pretraining.pretrain import pretrain
from coinml.pretraining.pretrain_report import PretrainReport
from coinml.runtime import progress
from coinml.runtime.devices import find_device
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml.tracking.mlflow_store import home_store
from tasks.limits import reserved_devices
from tasks.policies import RETRIES, RETRY_DELAYS_S, only_transient


@task(
    tags=["gpu"],
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=only_transient,
    # The checkpoints say what is done; a retry continues from the newest.
    cache_policy=NO_CACHE,
)
def pretrain_encoder(selection: Selection, options: PretrainOptions) -> PretrainReport:
    """Pre-train on the selection's training videos, alone on this machine's device."""
    settings = Settings()
    dataset = selection.load(settings.data_dir)
    parent = SetOptions(encoder=options.encoder, revision=options.revision)
    out = Path(options.out) if options.out else settings.data_dir / "pretrained" / dataset.name
    store = home_store(settings)
    with (
        store.outages_as_transient(),
        Ledger.of(settings) as ledger,
        reserved_devices(settings.data_dir / "locks", [str(find_device(settings.device))]),
    ):
        return pretrain(
            dataset,
            ledger,
            options,
            parent=parent.resolved(mini=selection.is_mini).checkpoint(),
            out=out,
            device=settings.device,
            store=store,
            on_step=progress.counter("pretrain"),
        )
