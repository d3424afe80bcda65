#!/usr/bin/env bash
# VideoMAEForPreTraining.from_pretrained of transformers 5.23.0, given a checkpoint of an encoder
# alone, leaves the decoder's mask token uninitialised: its values are what the memory held before.
# It is reported as missing and "newly initialized", like the decoder's other weights, which are. A
# new model has zeros. The values differ from run to run, and may be huge or NaN, so that the loss
# is too. This holds for a folder (`from_pretrained(folder)`) and for weights that are passed
# (`from_pretrained(None, config=config, state_dict=weights)`).
#
# torch fills uninitialised memory with NaN while it is asked for deterministic algorithms
# (torch.utils.deterministic.fill_uninitialized_memory, which is on by default), so the script sees
# the same every time.
#
# Seen with Python 3.11, torch 2.13.0, safetensors 0.8.0, a small VideoMAE with random weights:
#   a new model: mask token 0 to 0
#   from a folder: missing weights 21, with NaN: mask_token; loss nan
#   from passed weights: missing weights 21, with NaN: mask_token; loss nan
# What to do: set the weights in `missing_keys` (output_loading_info=True) to those of a new model.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6 safetensors==0.8.0 transformers==5.23.0
cat > "$work/look.py" <<'P'
import sys

import torch
from transformers import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEModel

folder = sys.argv[1]
config = VideoMAEConfig(
    image_size=32, patch_size=16, num_frames=4, hidden_size=32, num_hidden_layers=1,
    num_attention_heads=2, intermediate_size=64, decoder_hidden_size=32,
    decoder_num_hidden_layers=1, decoder_num_attention_heads=2, decoder_intermediate_size=64,
)
torch.use_deterministic_algorithms(True)
token = VideoMAEForPreTraining(config).mask_token
print(f"a new model: mask token {float(token.min()):g} to {float(token.max()):g}")
assert not token.any()
encoder = VideoMAEModel(config)
encoder.save_pretrained(folder)
weights = {f"videomae.{name}": values for name, values in encoder.state_dict().items()}
pixels, masked = torch.rand(1, 4, 3, 32, 32), torch.tensor([[True, True, False, False] * 2])
for form, source, more in (
    ("a folder", folder, {}),
    ("passed weights", None, {"config": config, "state_dict": weights}),
):
    model, info = VideoMAEForPreTraining.from_pretrained(source, output_loading_info=True, **more)
    bad = [name for name, values in model.named_parameters() if values.isnan().any()]
    loss = float(model(pixels, bool_masked_pos=masked).loss)
    missing = info["missing_keys"]
    print(f"from {form}: missing weights {len(missing)}, with NaN: {', '.join(bad)}; loss {loss:g}")
    assert bad == ["mask_token"] and "mask_token" in missing and loss != loss
print("as stated")
P
"$work/venv/bin/python" "$work/look.py" "$work/model" 2>/dev/null
