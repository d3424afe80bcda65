"""What the model rebuilds of a few clips that are the same at all steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from coinml.pretraining.clip_stream import ClipStream, fixed_clip
from coinml.pretraining.model import MaskedAutoencoder, masks_on
from coinml.pretraining.views import fixed_views

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CLIPS = 4


class FixedClips:
    """The middle clips of the first videos, each with a mask of its own.

    Args:
        stream: Whose videos and settings.
    """

    def __init__(self, stream: ClipStream) -> None:
        clips, masks = [], []
        for position, video in enumerate(stream.videos[:_CLIPS]):
            views = fixed_views(
                stream.settings.masking, seed=stream.settings.seed, position=position
            )
            clip = fixed_clip(video, stream.pool, stream.settings, views)
            if clip is not None:
                clips.append(clip)
                masks.append(views.masks)
        self._images = torch.cat(clips) if clips else None
        self._masks = np.concatenate(masks) if masks else None

    def rebuilt_by(self, model: MaskedAutoencoder) -> NDArray[np.uint8] | None:
        """Input, masked and rebuilt frames: uint8 (clips, 3, T, height, width, 3).

        None if none of the files decodes.
        """
        if self._images is None or self._masks is None:
            return None
        device = next(model.parameters()).device
        images, masks = self._images.to(device), masks_on(self._masks, device)
        model.eval()
        masked, rebuilt = model.rebuild(images, masks)
        model.train()
        both = torch.stack([images, masked, rebuilt], dim=1).permute(0, 1, 2, 4, 5, 3)
        return both.cpu().numpy()
