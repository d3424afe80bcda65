#!/usr/bin/env bash
# openvino 2026.4.1: `compile_model` for the CPU leaves an alternate signal stack of the model in the
# thread that calls it, in place of the one that was there. A model that is let go puts back what it
# had found: of two that are let go in the order in which they were made, the second puts back the
# freed stack of the first. CPython runs its C signal handlers on that stack (SA_ONSTACK), and
# faulthandler, which had put its own there, can say nothing when it has lost it.
#
# Seen with Python 3.11, x86-64 Linux:
#   with a model: 11568 bytes instead of 16880
#   after both were let go: the stack of the first model
# What to do: ask for the stack before compile_model and put it back afterwards, each time.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check openvino==2026.4.1
cat > "$work/look.py" <<'P'
import ctypes
import faulthandler
import sys

import numpy as np
import openvino
from openvino import opset13 as ops


class Stack(ctypes.Structure):
    _fields_ = [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def stack() -> tuple[int, int]:
    found = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
    return found.sp, found.size


faulthandler.enable()
x = ops.parameter([-1, 64], np.float32)
product = ops.matmul(x, ops.constant(np.ones((64, 64), np.float32)), False, True)
biased = ops.add(product, ops.constant(np.ones((1, 64), np.float32)))
model = openvino.Model([ops.result(biased)], [x])
core = openvino.Core()
before = stack()
first = core.compile_model(model, "CPU")
with_first = stack()
second = core.compile_model(model, "CPU")
print(f"openvino {openvino.__version__}")
print(f"with a model: {with_first[1]} bytes instead of {before[1]}")
del first
del second
after = stack()
is_as_stated = before != with_first == after
print("after both were let go:", "the stack of the first model" if is_as_stated else after)
sys.exit(0 if is_as_stated else 1)
P
"$work/venv/bin/python" -P "$work/look.py"
echo "as stated"
