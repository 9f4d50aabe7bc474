"""One list of instances per family: what is listed here is put through the whole contract."""

from __future__ import annotations

import numpy as np
import torch

from sparsepriors import operators as ops
from sparsepriors import priors as pr
from sparsepriors import solvers as sv
from sparsepriors.operators import LinearOperator
from sparsepriors.testing.prior import PriorCase
from sparsepriors.testing.solver import SolverCase


def operators() -> list[LinearOperator]:
    """Small instances of every exported operator, in each mode and in both precisions, real and complex."""
    g = torch.Generator().manual_seed(0)

    def draw(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.randn(*shape, dtype=dtype, generator=g)

    def mask(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=g) < 0.4

    f32, f64, c64, c128 = torch.float32, torch.float64, torch.complex64, torch.complex128
    matrix, complex_matrix = ops.Matrix(draw(7, 5)), ops.Matrix(draw(4, 6, dtype=c64))
    fourier = ops.FourierTransform((6, 5), dtype=c128)
    sampled = ops.Sampling(mask(6, 5), c128) @ fourier
    wide = draw(3, 4).numpy()
    return [
        ops.Identity((3, 4)),
        ops.Identity((), c128),
        ops.Reshape((3, 4), (2, 6), f64),
        ops.RealToComplex((3, 4)),
        ops.RealToComplex((5,), f64).H,
        matrix,
        complex_matrix,
        complex_matrix.H,
        ops.Diagonal(draw(3, 4)),
        ops.Diagonal(draw(6, dtype=c64)),
        ops.Diagonal(draw(6), c128),
        ops.Mask(mask(5, 4)),
        ops.Mask(mask(5, 4), c128),
        ops.Sampling(mask(5, 4)),
        ops.Sampling(mask(3, 4, 5), c64),
        ops.FourierTransform((7,)),
        fourier,
        ops.FourierTransform((2, 4, 3, 5), dims=3, dtype=c128),
        ops.FourierTransform((4, 6), centred=False),
        *(ops.FiniteDifference(shape, dims, dtype, boundary) for boundary in ("neumann", "periodic")
          for shape, dims, dtype in (((7,), None, f64), ((5, 4), None, f32), ((2, 5, 4), 2, c64), ((3, 4, 5), 3, c128),
                                     ((1, 4), None, f64))),
        *(ops.Convolution(draw(*kernel, dtype=dtype), shape, mode) for mode in ("circular", "same", "valid")
          for kernel, shape, dtype in (((3,), (8,), f64), ((2, 5), (2, 6, 7), f32), ((3, 2, 4), (5, 4, 6), c128))),
        ops.Convolution(ops.gaussian_kernel(0.8, radius=2), (6, 7), "circular", c64),
        *(ops.WaveletTransform(shape, wavelet, levels, dims, dtype) for wavelet, levels, shape, dims, dtype in (
            ("haar", 3, (16,), None, f64), ("db4", 2, (8, 12), None, f32), ("sym5", 1, (3, 6, 4), 2, c128),
            ("coif2", 1, (4, 6, 2), 3, c64), ("db2", 0, (5,), None, f64))),
        ops.Kronecker((draw(3, 4), draw(2, 2), draw(5, 3))),
        ops.Kronecker((complex_matrix, ops.FourierTransform((2, 3)), ops.Identity((2,), c64))),
        ops.Adjoint(matrix),
        sampled,
        sampled @ ops.RealToComplex((6, 5), f64),
        ops.Composed((ops.Matrix(draw(4, 7)), matrix)),
        ops.Sum((fourier, 2j * fourier.H)),
        ops.ScaledOperator(complex_matrix, 1.5 - 2j),
        ops.Stack((matrix, ops.Matrix(draw(2, 5)))),
        ops.Stack((fourier, ops.Mask(mask(6, 5), c128)), axis=-1),
        ops.Stack((ops.FiniteDifference((4, 3), dtype=f64), ops.Identity((4, 3), f64)), axis=None),
        ops.BlockDiagonal((matrix, ops.Matrix(draw(2, 3)))),
        ops.BlockDiagonal((ops.FiniteDifference((4, 3), dtype=f64), matrix), axis=None),
        ops.BornMIMO.crossed((3, 4, 2), 3, c128),
        ops.Elimination(6, torch.tensor([4, 1, 2]), torch.tensor([5, 0]), draw(2, 3),
                        torch.tensor([0.5, 0.0, 2.0], dtype=f64)),
        ops.from_callable(torch.fliplr, torch.fliplr, in_shape=(3, 4), in_dtype=f64),
        ops.from_scipy(wide),
        ops.from_scipy(np.asfortranarray(wide + 1j * wide[::-1]), in_shape=(2, 2)),
    ]


def priors() -> list[PriorCase]:
    """Small cases of every exported prior."""
    f32, f64 = torch.float32, torch.float64
    weights = torch.linspace(0.2, 1.0, 5, dtype=f64)
    row = (5,)
    unet = pr.PlugAndPlay(pr.Denoiser("radar-unet3d"))
    return [
        PriorCase(pr.Zero(dims=1), row),
        *(PriorCase(p, row) for p in (
            pr.L1(0.4), pr.L1(0.4, dims=1), pr.L1(weights, dims=1), pr.L1(0.3, dims=0),
            pr.SquaredL2(0.7, dims=1), pr.SquaredL2(weights), pr.ElasticNet(0.3, 0.5, dims=1),
            pr.Huber(0.8, 0.3, dims=1), pr.Logistic(0.8, dims=1), pr.Logistic(weights),
            pr.L0(0.2, dims=1), pr.L0(weights), pr.Lq(0.4, 0.5, dims=1),
            pr.Lq(0.4, 2 / 3, dims=1), pr.MCP(0.5, 2.0, dims=1), pr.MCP(weights, 0.8), pr.SCAD(0.4, 3.7, dims=1),
            pr.SCAD(0.4, 2.2), pr.LogSum(0.5, 0.3, dims=1), pr.LogSum(1.5, 1.0), pr.CEL0(0.4, 0.8, dims=1),
            pr.CEL0(0.4, weights), pr.SLOPE(weights.flip(0), dims=1),
            pr.Box(-0.5, 0.7, dims=1), pr.Box(-torch.inf, weights), pr.NonNegative(dims=1), pr.LinfBall(0.6, dims=1),
            pr.L2Ball(0.9, dims=1), pr.L2Ball(0.9), pr.L1Ball(1.2, dims=1), pr.Simplex(1.0, dims=1), pr.Simplex(2.0),
            pr.Cardinality(2, dims=1), pr.Cardinality(3),
            2.5 * pr.L1(0.2, dims=1), pr.L1(0.4, dims=1) + pr.SquaredL2(0.5),
            pr.PlusQuadratic(pr.L0(0.2, dims=1), 0.5, weights), pr.Translated(pr.L1(0.4, dims=1), weights),
            pr.Translated(pr.L2Ball(0.5, dims=1), 0.3), pr.Magnitude(pr.L1(0.4, dims=1)),
            pr.Magnitude(pr.NonNegative(dims=1)), pr.Conjugate(pr.L1(0.7, dims=1)),
            pr.Conjugate(pr.Huber(0.7, 0.2, dims=1)),
        )),
        PriorCase(pr.GroupL2(0.6, axis=-1, dims=2), (3, 4)),
        PriorCase(pr.GroupL2(0.6, axis=(-2, -1), dims=3), (2, 2, 3)),
        PriorCase(pr.Groups(pr.L0(0.6, dims=2), axis=-1), (3, 4)),
        PriorCase(pr.Partition(pr.L1(0.6, dims=1), torch.tensor([0, 2, 1, 0, 2])), (5,)),
        PriorCase(pr.Partition(pr.L0(0.6, dims=1), torch.tensor([1, 0, 1, 1])), (4,)),
        PriorCase(pr.Groups(pr.Cardinality(2, dims=2), axis=-2), (3, 4)),
        PriorCase(pr.NuclearNorm(0.5), (4, 3)),
        PriorCase(pr.Rank(1), (4, 3)),
        PriorCase(pr.LowRankPlusSparse(1, 2), (4, 3), accuracy=1e-4),
        PriorCase(pr.LowRankPlusSparse(0, 2, iterations=1), (4, 3), accuracy=1e-4),
        *(PriorCase(pr.TV(0.3, isotropic, dims=dims), shape, accuracy=1e-4)
          for isotropic in (True, False) for dims, shape in ((1, (6,)), (2, (4, 5)), (3, (3, 4, 2)))),
        PriorCase(pr.Magnitude(pr.TV(0.3, dims=2)), (4, 5), accuracy=1e-4),
        PriorCase(pr.InBasis(pr.L1(0.3), ops.WaveletTransform((4, 8), "db2", 1, dtype=f64)), (4, 8), (f64,)),
        PriorCase(pr.InBasis(pr.L1(0.3, dims=2), ops.FourierTransform((4, 4), dtype=torch.complex128)), (4, 4),
                  (torch.complex128,)),
        *(PriorCase(p, (4, 8)) for p in (
            pr.Unstructured(0.3), pr.Unstructured(0.3, dims=2), pr.Unstructured(0.0, True, dims=2), pr.NM(2, 4),
            pr.NM(1, 4, dims=2), pr.NM(3, 5, pad="tail", dims=2), pr.AtLeastNM(1, 4, 0.6, dims=2),
            pr.NM(2, 4, layout="flat", dims=2), pr.Block(0.4, (2, 4)), pr.Block(0.4, (2, 2), dims=2),
            pr.Channel(0.5), pr.Channel(0.4, dim=1, dims=2), pr.Balanced(0.3), pr.Balanced(0.3, dim=0, dims=2),
            pr.PerTokenMagnitude(0.3, dims=2), pr.PerTokenMagnitude(0.5),
            pr.PerTokenOutputAware(0.3, window=2), pr.PerChannelMagnitude(0.5, group=2, dims=2),
            pr.PerChannelOutputAware(0.4, group=3), pr.ChannelStructured(0.4, dims=2),
            pr.OutputBlocks(0.4, 2), pr.OutputBlocks(0.4, 4, dims=1), pr.OutputBlocks(0.3, 3, 5))),
        *(PriorCase(p, (3, 4)) for p in (
            pr.TopK(2, dims=1), pr.TopK(7, dims=1), pr.TopK(1), pr.BatchTopK(1.4, dims=2), pr.BatchTopK(2),
            pr.JumpReLU(0.6, dims=1), pr.JumpReLU(0.3), pr.Matryoshka(pr.L1(0.4, dims=1), (1, 3), dims=1),
            pr.Matryoshka(pr.TopK(2, dims=1), draws=2, dims=1))),
        PriorCase(unet, (8, 8, 8), (f32,)),
        PriorCase(pr.Magnitude(unet), (8, 8, 8), (f32,)),
    ]


def solvers() -> list[SolverCase]:
    """Every exported solver, in each of its modes."""
    one, two = {"std": 1.0}, {"k": 2}

    def unit_denoiser(A: LinearOperator) -> dict[str, float]:
        step = 1 / A.norm() ** 2
        return {"step": step, "std": step ** 0.5}

    return [
        SolverCase(sv.proximal_gradient),
        *(SolverCase(sv.proximal_gradient, options=options, name=f"proximal_gradient {options}") for options in (
            {"accelerated": False}, {"restart": False}, {"backtracking": True}, {"objective": False})),
        SolverCase(sv.admm),
        *(SolverCase(sv.admm, options=options, name=f"admm {options}") for options in (
            {"rho": 0.7, "relax": 1.5}, {"solve": "cg"}, {"solve": "linearised"}, {"solve": "exact"})),
        SolverCase(sv.primal_dual),
        SolverCase(sv.conjugate_gradient, "hermitian"),
        SolverCase(sv.least_squares, "least squares"),
        SolverCase(sv.csalsa, "constrained", {"eps": 1.0, "kappa": 1.0, "alpha": 1.0}),
        SolverCase(sv.orthogonal_matching_pursuit, "sparse", two),
        SolverCase(sv.cosamp, "sparse", {**two, "inner": 2}),
        SolverCase(sv.iterative_hard_thresholding, "set"),
        SolverCase(sv.pnp_proximal_gradient, options=unit_denoiser),
        SolverCase(sv.pnp_admm, options=one),
        SolverCase(sv.hqs, "envelope", {"noise_std": 0.5, "trust": 0.8, "stds": (0.4,)}),
    ]
