"""VideoMAE with its decoder: the loss of masked clips, and what it rebuilds of them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from coinml.encoder.backbone import quiet_transformers
from coinml.encoder.checkpoint import Checkpoint, first_line
from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DECODER = ("decoder.", "encoder_to_decoder.", "mask_token")
"""Beginnings of the names of weights that a checkpoint of an encoder alone lacks."""

_EPSILON = 1e-6
"""Added to a patch's standard deviation, as in transformers."""


class MaskedAutoencoder(nn.Module):
    """The loss of `VideoMAEForPreTraining`, with less work for the same result.

    Only visible patches are normalised and embedded, and only masked ones become targets;
    transformers does both with all of them. Targets are normalised per patch and channel.

    Args:
        model: A `VideoMAEForPreTraining`; its weights are trained.
        mean: Mean of each channel of the input, for values from 0 to 1.
        std: Standard deviation of each channel, likewise.
    """

    def __init__(
        self, model: Any, *, mean: tuple[float, float, float], std: tuple[float, float, float]
    ) -> None:
        super().__init__()
        self.model = model
        self._mean: Tensor
        self._std: Tensor
        self._encoder_positions: Tensor
        self._decoder_positions: Tensor
        self._patch = (model.config.tubelet_size, model.config.patch_size)
        tables = {
            "_mean": torch.tensor(mean).view(3, 1),
            "_std": torch.tensor(std).view(3, 1),
            # These are plain tensors in transformers, which stay on the CPU.
            "_encoder_positions": model.videomae.embeddings.position_embeddings[0].detach(),
            "_decoder_positions": model.position_embeddings[0].detach(),
        }
        for name, table in tables.items():
            self.register_buffer(name, table.float().clone(), persistent=False)

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """Mean squared error of the rebuilt patches.

        Args:
            images: uint8 (N, T, 3, height, width).
            masks: bool (N, tokens), True where masked, as many in each clip.

        Returns:
            float32 ().
        """
        patches, masked = self._patches(images), places(masks)
        targets, *_ = _normalised_targets(_at(patches, masked))
        return functional.mse_loss(self._rebuilt(patches, masks).float(), targets)

    def save_memory(self) -> None:
        """Compute activations again for the gradient instead of keeping them."""
        with quiet_transformers():
            self.model.gradient_checkpointing_enable({"use_reentrant": False})

    @torch.no_grad()
    def rebuild(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """The clips with masked patches in grey, and with those that the model rebuilds.

        A rebuilt patch has the mean and deviation of the original one, which are not predicted.

        Args:
            images: As `forward` takes them.
            masks: Likewise.

        Returns:
            Two tensors, uint8 (N, T, 3, height, width).
        """
        patches, masked = self._patches(images), places(masks)
        originals = _at(patches, masked)
        targets, mean, deviation = _normalised_targets(originals)
        predicted = self._rebuilt(patches, masks).float().view(*targets.shape[:2], -1, 3)
        rebuilt = ((predicted * deviation + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        index = masked[..., None].expand_as(originals)
        grey = patches.scatter(1, index, torch.full_like(originals, 128))
        return (
            self._pictures(grey, images.shape),
            self._pictures(patches.scatter(1, index, rebuilt.flatten(2)), images.shape),
        )

    def _rebuilt(self, patches: Tensor, masks: Tensor) -> Tensor:
        """Predicted targets of the masked patches."""
        videomae, model = self.model.videomae, self.model
        visible, masked = places(~masks), places(masks)
        # (N, visible, 3, pixels): the order of the convolution's weights.
        pixels = _by_channel(_at(patches, visible)).transpose(2, 3)
        pixels = ((pixels - self._mean) / self._std).flatten(2)
        projection = videomae.embeddings.patch_embeddings.projection
        tokens = functional.linear(pixels, projection.weight.flatten(1), projection.bias)
        hidden = videomae.encoder(tokens + self._encoder_positions[visible]).last_hidden_state
        if videomae.layernorm is not None:
            hidden = videomae.layernorm(hidden)
        seen = model.encoder_to_decoder(hidden) + self._decoder_positions[visible]
        hidden_patches = model.mask_token + self._decoder_positions[masked]
        decoded = model.decoder(torch.cat([seen, hidden_patches], dim=1), masked.shape[1])
        logits: Tensor = decoded.logits
        return logits

    def _patches(self, images: Tensor) -> Tensor:
        """Patches in the order of the tokens: uint8 (N, tokens, pixels of a patch x 3)."""
        tubelet, side = self._patch
        count, times, channels, height, width = images.shape
        parts = images.view(
            count, times // tubelet, tubelet, channels, height // side, side, width // side, side
        )
        return parts.permute(0, 1, 4, 6, 2, 5, 7, 3).flatten(4).flatten(1, 3)

    def _pictures(self, patches: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of `_patches`."""
        tubelet, side = self._patch
        count, times, channels, height, width = shape
        parts = patches.view(
            count, times // tubelet, height // side, width // side, tubelet, side, side, channels
        )
        return parts.permute(0, 1, 4, 7, 2, 5, 3, 6).reshape(shape)


def places(chosen: Tensor) -> Tensor:
    """Ascending indices of the True of each row: int64 (N, as many as a row has)."""
    return chosen.nonzero()[:, 1].view(len(chosen), -1)


def masks_on(masks: NDArray[np.bool_], device: torch.device) -> Tensor:
    """Masks as a tensor on a device."""
    return torch.from_numpy(masks).to(device)


def load_model(checkpoint: Checkpoint, *, from_scratch: bool, seed: int) -> Any:
    """A `VideoMAEForPreTraining` in float32 on the CPU; `seed` is for weights that are random.

    Args:
        checkpoint: Gives the shape, and the weights if the model does not begin from scratch. If
            it has no decoder, the decoder's weights are random.
        from_scratch: Whether all weights are random.
        seed: Seed of random weights.

    Raises:
        InvalidInputError: It is no VideoMAE of colour pictures, or its files do not load.
    """
    if checkpoint.model_type != "videomae":
        raise InvalidInputError(
            f"{checkpoint.ref}: is a {checkpoint.model_type}; only a videomae can be pre-trained"
        )
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        import transformers

        model_class: Any = transformers.VideoMAEForPreTraining
        torch.manual_seed(seed)
        fields = {**checkpoint.model_fields, "norm_pix_loss": True}
        if fields.get("num_channels", 3) != 3:
            raise InvalidInputError(
                f"{checkpoint.ref}: config.json: num_channels is {fields['num_channels']}; "
                "it must be 3"
            )
        try:
            config = model_class.config_class(**fields, attn_implementation="sdpa")
            fresh = model_class(config)
            if from_scratch:
                return fresh
            model, found = model_class.from_pretrained(
                None,
                config=config,
                state_dict=checkpoint.weights.tensors(),
                local_files_only=True,
                dtype=torch.float32,
                attn_implementation="sdpa",
                output_loading_info=True,
            )
        except Exception as err:
            # Malformed files raise errors of many types; all mean that the checkpoint is invalid.
            raise InvalidInputError(
                f"{checkpoint.ref}: cannot be loaded: {first_line(err)}"
            ) from err
    if missing := [name for name in found["missing_keys"] if not name.startswith(_DECODER)]:
        raise InvalidInputError(
            f"{checkpoint.ref}: {checkpoint.weights.main.name} lacks {len(missing)} of the "
            f"encoder's weights, such as {min(missing)}; --from-scratch needs none"
        )
    # transformers leaves a missing mask token uninitialised: whatever was in memory, or NaN.
    random = {name: fresh.state_dict()[name] for name in found["missing_keys"]}
    model.load_state_dict(random, strict=False)
    return model


def find_autocast(name: str, device: torch.device) -> torch.dtype:
    """The type that matrix products are computed in, by the value of `PretrainOptions.dtype`."""
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = torch.cpu.get_capabilities()
        # Without these instructions bfloat16 is emulated, which is slower than float32.
        native = bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return torch.bfloat16 if native else torch.float32


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    """Matrix products within it are computed in a type."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def _at(patches: Tensor, index: Tensor) -> Tensor:
    """The patches at some places: (N, places, values)."""
    return patches.gather(1, index[..., None].expand(-1, -1, patches.shape[2]))


def _by_channel(patches: Tensor) -> Tensor:
    """Values from 0 to 1: float32 (N, places, pixels of a patch, 3)."""
    return patches.view(*patches.shape[:2], -1, 3).float() / 255


def _normalised_targets(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Targets (N, places, values) of patches, and each patch's mean and deviation by channel."""
    pixels = _by_channel(patches)
    mean = pixels.mean(dim=2, keepdim=True)
    deviation = pixels.var(dim=2, unbiased=True, keepdim=True).sqrt() + _EPSILON
    return ((pixels - mean) / deviation).flatten(2), mean, deviation
