#!/usr/bin/env bash
# transformers 5.6.0 to 5.17.0 load a VideoMAE checkpoint in its original layout (q_bias and v_bias
# beside a query-key-value matrix, as every public checkpoint has it) without its attention biases:
# they are newly initialised to zero, and the only sign is a report on the log. The vectors are
# wrong, of the right shape, and plausible. 5.5.0 and from 5.18.0 on it is right, so that an upgrade
# may break a pipeline and the next one mend it, with other embeddings in between.
#
# Seen with Python 3.11, torch 2.13.0, safetensors 0.8.0, a small VideoMAE with random weights:
#   5.23.0 writes the original layout and reads it back exactly: largest difference 0
#   5.5.0 reads the same file: 0
#   5.18.0 too: 0
#   5.6.0, 5.12.0 and 5.17.0 read the same file: largest difference 0.435
# What to do: a floor of 5.18 (or a cap of 5.5), and a test that compares a layer's biases with the
# file's, since from_pretrained raises nothing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
python3 -m venv "$work/venv"
pip() { "$work/venv/bin/python" -m pip install -q --disable-pip-version-check "$@"; }
cat > "$work/look.py" <<'P'
import sys
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from transformers import VideoMAEConfig, VideoMAEModel

folder, expected = Path(sys.argv[1]), sys.argv[2]
pixels = torch.randn(1, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
if expected == "write":
    torch.manual_seed(0)
    config = VideoMAEConfig(
        image_size=32, patch_size=16, num_frames=4, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=64,
    )
    model = VideoMAEModel(config).eval()
    with torch.no_grad():
        for name, values in model.named_parameters():
            # Biases of a new model are zero; a trained one's are not.
            if name.endswith("bias"):
                values.normal_()
    model.save_pretrained(folder)
    torch.save(VideoMAEModel.from_pretrained(folder).eval()(pixels).last_hidden_state, folder / "y")
with safe_open(folder / "model.safetensors", "pt") as file:
    names = [name for name in file.keys() if name.endswith(("q_bias", "v_bias"))]
assert len(names) == 4, names
with torch.no_grad():
    found = VideoMAEModel.from_pretrained(folder).eval()(pixels).last_hidden_state
difference = float((found - torch.load(folder / "y")).abs().max())
print(f"transformers {transformers.__version__}: largest difference {difference:.3g}")
sys.exit(0 if (difference < 1e-5) == (expected != "wrong") else 1)
P
pip torch==2.13.0 numpy==2.4.6 safetensors==0.8.0 transformers==5.23.0
"$work/venv/bin/python" "$work/look.py" "$work/model" write 2>/dev/null
for version in 5.5.0 5.18.0; do
  pip "transformers==$version"
  "$work/venv/bin/python" "$work/look.py" "$work/model" right 2>/dev/null
done
for version in 5.6.0 5.12.0 5.17.0; do
  pip "transformers==$version"
  "$work/venv/bin/python" "$work/look.py" "$work/model" wrong 2>/dev/null
done
echo "as stated"
