#!/usr/bin/env bash
# safetensors 0.8.0 writes a numpy array that is not C-contiguous in another order than it has,
# and raises nothing; 0.7.0 writes it right. Embeddings that were transposed or sliced before
# they are saved come back with the right shape and the wrong numbers.
#
# Seen with Python 3.11, numpy 2.4.6:
#   safetensors 0.7.0: transposed True, Fortran order True, every second column True
#   safetensors 0.8.0: transposed False, Fortran order False, every second column False
#   safetensors 0.8.0 after np.ascontiguousarray: True for all three
# What to do: np.ascontiguousarray(x) before safetensors.numpy.save_file or save.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip() { "$work/venv/bin/python" -m pip install -q --disable-pip-version-check "$@"; }
cat > "$work/look.py" <<'P'
import sys

import numpy as np
import safetensors
from safetensors.numpy import load, save

x = np.arange(12, dtype=np.float32).reshape(3, 4)
forms = {"transposed": x.T, "Fortran order": np.asfortranarray(x), "every second column": x[:, ::2]}


def kept(prepare):
    return {
        name: bool(np.array_equal(load(save({"x": prepare(form)}))["x"], form))
        for name, form in forms.items()
    }


plain, copied = kept(lambda form: form), kept(np.ascontiguousarray)
print(f"safetensors {safetensors.__version__}, numpy {np.__version__}: as they are {plain}")
print(f"  after np.ascontiguousarray {copied}")
assert all(copied.values())
sys.exit(0 if set(plain.values()) == {sys.argv[1] == "right"} else 1)
P
pip numpy==2.4.6 safetensors==0.7.0
"$work/venv/bin/python" "$work/look.py" right
pip safetensors==0.8.0
"$work/venv/bin/python" "$work/look.py" wrong
echo "as stated"
