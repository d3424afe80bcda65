"""The card of a pre-trained encoder: what it saw, how, and where it comes from."""

from __future__ import annotations

from coinml.pretraining.checkpoints import TrainingRecord

_CARD = """# {name}

A VideoMAE that was pre-trained without labels by `coinml pretrain`: it rebuilds the masked parts of
clips. Nothing but collected videos of the training split was used.

| | |
| --- | --- |
| data | {dataset}: {videos:,} training videos, ids {ids}, ledger {ledger} |
| parent | {parent} |
| masking | {masking}, {share:.1%} of the tokens, targets normalised per patch |
| steps | {step:,} of {steps:,}, {batch} clips each ({crops} crops of each decoded clip) |
| optimiser | AdamW, peak rate {lr:g}, weight decay {decay:g}, warm-up over {warmup:.0%} |
| computed in | {dtype} |
| seed | {seed} |
| loss | {losses} |
| files that did not decode | {failed} |

Use it with `coinml embed --encoder DIR` and this folder as DIR. Its embedding set has a fingerprint
of its own, so that heads on it are compared with those on its parent's.
"""


def card_of(name: str, record: TrainingRecord) -> str:
    """The card of a checkpoint (Markdown).

    Args:
        name: The checkpoint's.
        record: Its record.
    """
    recipe, losses = record.recipe, record.losses
    return _CARD.format(
        name=name,
        dataset=recipe["dataset"],
        videos=recipe["videos"],
        ids=recipe["ids_digest"],
        ledger=record.ledger_digest,
        parent=(
            f"shape of {recipe['parent']}, random weights"
            if recipe["from_scratch"]
            else f"{recipe['parent']}, weights {recipe['parent_weights_sha256'][:12]}"
        ),
        masking=recipe["masking"],
        share=recipe["masked_share"],
        step=record.step,
        steps=record.steps,
        batch=recipe["batch_clips"],
        crops=recipe["crops"],
        lr=recipe["lr"],
        decay=recipe["weight_decay"],
        warmup=recipe["warmup"],
        dtype=recipe["dtype"],
        seed=recipe["seed"],
        losses=(
            f"{losses[0]:.4f} at first, {losses[-1]:.4f} at last (means of ten steps)"
            if losses
            else "not measured yet"
        ),
        failed=len(record.failed) or "none",
    )
