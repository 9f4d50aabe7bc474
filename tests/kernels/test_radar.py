"""The Born kernels: against a direct float64 sum, each instruction set, threads, precisions, tails."""

import math
from dataclasses import replace

import pytest
import torch

from sparsepriors import kernels
from sparsepriors.kernels import reference


def problem(voxels, frequencies, transmitters, receivers, real, *, even=True, seed=0):
    g = torch.Generator().manual_seed(seed)
    k = torch.linspace(80.0, 330.0, frequencies, dtype=torch.float64)
    if not even:
        k = k + torch.rand(frequencies, dtype=torch.float64, generator=g)
    d = 0.4 + 0.3 * torch.rand(transmitters + receivers, voxels, dtype=torch.float64, generator=g)
    a = 1 / (math.sqrt(4 * math.pi) * d)
    tables = kernels.born_tables(k, d, a, transmitters, evenly_spaced=even, dtype=real)
    propagators = a * torch.exp(-1j * k[:, None, None] * d)
    direct = torch.einsum("ktv,krv->ktrv", propagators[:, :transmitters], propagators[:, transmitters:])
    x = torch.randn(2, voxels, dtype=torch.complex128, generator=g)
    y = torch.randn(2, frequencies, transmitters, receivers, dtype=torch.complex128, generator=g)
    return tables, direct, x, y


def relative(got, want):
    return float((got - want).abs().max() / want.abs().max().clamp(min=1e-300))


@pytest.mark.parametrize("instruction_set", kernels.instruction_sets() or (None,))
@pytest.mark.parametrize(("real", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize(("voxels", "frequencies", "transmitters", "receivers"), [
    (1, 1, 1, 1), (127, 3, 2, 3), (128, 40, 4, 3), (129, 5, 12, 13), (300, 2, 5, 7), (257, 33, 7, 1), (64, 4, 13, 6)])
@pytest.mark.parametrize("even", [True, False])
def test_direct_sum(instruction_set, real, tolerance, voxels, frequencies, transmitters, receivers, even):
    tables, direct, x, y = problem(voxels, frequencies, transmitters, receivers, real, even=even)
    forward = kernels.born_forward(x.to(real.to_complex()), tables, instruction_set=instruction_set)
    adjoint = kernels.born_adjoint(y.to(real.to_complex()), tables, instruction_set=instruction_set)
    assert relative(forward, torch.einsum("ktrv,bv->bktr", direct, x)) <= tolerance
    assert relative(adjoint, torch.einsum("ktrv,bktr->bv", direct.conj(), y)) <= tolerance


@pytest.mark.parametrize("real", [torch.float32, torch.float64])
def test_results_do_not_depend_on_threads(real):
    tables, _, x, y = problem(1500, 6, 5, 4, real)
    x, y = x.to(real.to_complex()), y.to(real.to_complex())
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append((kernels.born_forward(x, tables), kernels.born_adjoint(y, tables)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, found[0][0]) and torch.equal(b, found[0][1]) for a, b in found)


def test_reference_works_in_chunks(monkeypatch):
    tables, direct, x, y = problem(700, 3, 2, 3, torch.float64)
    monkeypatch.setattr("sparsepriors.kernels.reference.radar._CHUNK_ENTRIES", 2000)
    assert relative(reference.born_forward(x, tables), torch.einsum("ktrv,bv->bktr", direct, x)) <= 1e-12
    assert relative(reference.born_adjoint(y, tables), torch.einsum("ktrv,bktr->bv", direct.conj(), y)) <= 1e-12


@pytest.mark.public_door
def test_bad_input():
    tables, _, x, y = problem(50, 2, 2, 2, torch.float64)
    with pytest.raises(ValueError, match=r"x must have shape \(batch, 50\)"):
        kernels.born_forward(x[:, :40], tables)
    with pytest.raises(ValueError, match=r"must be torch\.complex128"):
        kernels.born_forward(x.to(torch.complex64), tables)
    with pytest.raises(ValueError, match=r"y must have shape \(batch, 2, 2, 2\)"):
        kernels.born_adjoint(y[:, :1], tables)
    if kernels.instruction_sets():
        with pytest.raises(ValueError, match="instruction_set must be one of"):
            kernels.born_adjoint(y, tables, instruction_set="altivec")
    with pytest.raises(ValueError, match="base and ratio must have 5 and 4 axes and agree in shape"):
        replace(tables, ratio=tables.ratio[1:])


def test_info_names_what_runs():
    info = kernels.info()
    assert set(info.kernels) == {n for n in kernels.__all__ if n.islower() and hasattr(reference, n)}
    assert info.native == bool(info.instruction_sets) == (not info.why_not)
    best = info.instruction_sets[0] if info.native else "reference"
    assert info.kernels["born_forward"] == info.kernels["born_adjoint"] == info.kernels["nm_mask"] == best
    assert info.kernels["topk_mask"] == ("portable" if info.native else "reference")
