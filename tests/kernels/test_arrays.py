"""What compiled kernels take for an array: which tensors lend theirs, and what is refused."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sparsepriors import _compiled, kernels
from sparsepriors.kernels import dispatch
from sparsepriors.priors import L1, NM, TV

pytestmark = pytest.mark.skipif(dispatch.NATIVE is None, reason="no compiled module")


class OfATensor(torch.Tensor):
    """A tensor that says nothing of its own."""


def kept(scores, out=None):
    """The 2:4 mask of the compiled kernel, written to what is given."""
    out = torch.zeros(8, dtype=torch.bool) if out is None else out
    assert _compiled.NATIVE is not None
    _compiled.NATIVE.nm_mask(scores, 2, 4, out, 1, _compiled.FIRST)
    return np.asarray(out).tolist()


SCORES = torch.tensor([3.0, 1.0, 2.0, 0.0, 5.0, 6.0, 7.0, 8.0])
MASK = [True, False, True, False, False, False, True, True]


@pytest.mark.parametrize("array", [
    SCORES, SCORES.double(), SCORES.clone().requires_grad_(), torch.nn.Parameter(SCORES), SCORES.as_subclass(OfATensor),
    SCORES.reshape(2, 1, 4), SCORES.repeat(2)[8:], SCORES.numpy(), SCORES.double().numpy(),
    SCORES.reshape(8, 1).expand(8, 1),
], ids=["tensor", "double", "leaf", "parameter", "subclass", "axes", "offset", "NumPy", "NumPy double", "column"])
def test_arrays_in_memory_are_read_where_they_are(array):
    assert dispatch.NATIVE is not None
    assert dispatch.NATIVE.in_memory(array)
    assert kept(array) == MASK


def test_results_are_written_where_the_caller_said():
    flags, long = np.zeros(8, dtype=bool), torch.zeros(16, dtype=torch.bool)
    assert kept(SCORES, flags) == MASK
    kept(SCORES, long[4:12])
    assert long.tolist() == [False] * 4 + MASK + [False] * 4


def fake():
    with FakeTensorMode():
        return torch.empty(8)


def read_only():
    flags = np.zeros(8, dtype=bool)
    flags.flags.writeable = False
    return flags


@pytest.mark.parametrize("array", [
    SCORES.repeat_interleave(2)[::2], SCORES[:1].expand(8), SCORES.to(torch.int32), SCORES.half(), SCORES.tolist(),
    None, SCORES.to("meta"), SCORES.to_sparse(), fake(), "scores", torch.Tensor,
], ids=["strided", "expanded", "int32", "half", "list", "None", "meta", "sparse", "fake", "str", "type"])
def test_what_is_no_contiguous_array_of_the_type_is_refused(array):
    with pytest.raises(TypeError, match="incompatible function arguments"):
        kept(array)


@pytest.mark.parametrize("out", [torch.zeros(8), np.zeros(8), torch.zeros(16, dtype=torch.bool)[::2], read_only()],
                         ids=["float", "NumPy float", "strided", "read-only"])
def test_a_result_is_never_written_to_a_copy(out):
    with pytest.raises(TypeError, match="incompatible function arguments"):
        kept(SCORES, out)


def test_tensors_without_memory_are_told():
    assert dispatch.NATIVE is not None
    for array in (SCORES.to_sparse(), fake(), SCORES.to("meta")):
        assert not dispatch.NATIVE.in_memory(array)
    assert dispatch.NATIVE.in_memory(torch.empty(0))
    assert dispatch.NATIVE.in_memory(np.empty((3, 0)))
    assert not dispatch.NATIVE.in_memory("scores")


def test_types_may_come_and_go():
    """More types than are remembered, some of which exist no more."""
    for i in range(20):
        made = type(f"Made{i}", (torch.Tensor,), {})
        for array in (SCORES.as_subclass(made), SCORES, SCORES.numpy()):
            assert kept(array) == MASK


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")   # as torch.func itself loads
def test_what_torch_func_follows_runs_the_reference():
    x = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for prior in (L1(0.1), TV(0.1, tol=1e-12, max_iter=50_000)):
        slope = torch.func.jvp(prior.prox, (x,), (h,))[1]
        step = (prior.prox(x + 1e-6 * h) - prior.prox(x - 1e-6 * h)) / 2e-6
        torch.testing.assert_close(slope, step, rtol=1e-3, atol=1e-3)
    rows = x.flatten(1)
    grad = torch.func.grad(lambda v: (v * NM(2, 4).mask(v)).sum())(rows)
    assert torch.equal(grad != 0, kernels.nm_mask(rows, 2, 4))
