"""The model card of the tiny encoder, with the numbers of the run that made it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_CARD = """# The miniature's tiny VideoMAE

**What it is.** A VideoMAE of {millions:.1f} M parameters (80 x 80 pixels, patches of 16, tubelets
of 4 frames, 4 layers, width 128), trained so that coinml's demonstration and tests have an
encoder that sees something without a download. A clip's embedding is the mean over its 100
tokens after the final layer norm.

**What it is not.** A model of real video. It has seen nothing but drawings: six surfaces, six
tools and six motions on flat backgrounds. On photographs expect little of its vectors. For
anything real use `MCG-NJU/videomae-base` or another pretrained checkpoint.

**How it was made.** Supervised, by `python -m coinml.miniature.pretrain --steps {steps}
--batch-size {batch_size} --lr {lr:g} --seed {seed}`: {clips:,} drawn clips of 16 frames at
stride 4, each seen once, of random compositions. The combinations that the miniature's six
tasks show were never drawn, nor were its seeds. It was not pretrained by masking; only its
architecture is VideoMAE's. Weights are stored in half precision.

**How well it sees.** Accuracy from the mean token on {held_out} held-out clips of random
compositions, chance 0.17: {accuracies}.

Licence: MIT, as the rest of this repository. Nothing in it comes from anyone's data.
"""


def write_card(
    folder: Path,
    accuracies: Mapping[str, float],
    *,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
    parameters: int,
    held_out: int,
) -> None:
    """Write `README.md` beside the weights."""
    card = _CARD.format(
        millions=parameters / 1e6,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        clips=steps * batch_size,
        held_out=held_out,
        accuracies=", ".join(f"{name} {value:.2f}" for name, value in accuracies.items()),
    )
    (folder / "README.md").write_text(card)
