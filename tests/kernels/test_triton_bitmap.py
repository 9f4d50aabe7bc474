"""The Triton kernels against the references, in Triton's interpreter, which has to be chosen before the import."""

import os
import subprocess
import sys

import pytest

COMPARE = """
import torch
from sparsepriors.kernels import pack_bitmap, reference, triton_bitmap

g = torch.Generator().manual_seed(0)
for dtype, batch, heads, group, tokens, channels, recent, keep, pad, masked in (
        (torch.float32, 1, 2, 3, 128, 64, 5, 20, 1, None), (torch.bfloat16, 2, 1, 4, 576, 72, 3, 40, 8, bool),
        (torch.float16, 1, 1, 17, 64, 16, 0, None, 1, float), (torch.float32, 1, 2, 1, 0, 64, 3, 3, 1, bool)):
    def normal(*shape):
        return torch.randn(shape, generator=g).to(dtype)

    q = normal(batch, heads * group, channels)
    keys, values = (pack_bitmap(normal(batch, heads, tokens, channels), o, keep, pad) for o in ("key", "value"))
    dense = [normal(batch, heads, recent, channels) for _ in "kv"]
    weights = torch.rand(batch, heads * group, tokens, generator=g)
    mask = None if masked is None else torch.rand(batch, 1, tokens + recent, generator=g) < 0.5
    if mask is not None:
        mask[0] = False
    if masked is float:
        mask = torch.randn(batch, heads * group, tokens + recent, generator=g)
    for name, arguments in (("bitmap_scores", (q, keys)), ("bitmap_mix", (weights, values)),
                            ("bitmap_attention", (q, keys, values, *dense, 0.2, mask))):
        found, due = (getattr(body, name)(*arguments) for body in (triton_bitmap, reference))
        assert found.shape == due.shape and found.dtype == due.dtype, (name, found.shape, found.dtype)
        size = float(due.abs().max()) if due.numel() else 0.0
        off = float((found.float() - due.float()).abs().max()) if due.numel() else 0.0
        assert off <= 20 * torch.finfo(due.dtype).eps * size, (name, dtype, tokens, off, size)
print("as the references")
"""


def test_in_the_interpreter():
    pytest.importorskip("triton")
    ran = subprocess.run([sys.executable, "-W", "error", "-c", COMPARE], capture_output=True, text=True, check=False,
                         env=os.environ | {"TRITON_INTERPRET": "1", "TRITON_DEFAULT_FP_FUSION": "1"})
    assert ran.stdout.strip() == "as the references", ran.stderr[-2000:]
