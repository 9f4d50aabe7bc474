"""What is measured: linear operators with exact adjoints."""

from sparsepriors.operators.adapters import FunctionOperator, NumpyOperator, from_callable, from_pylops, from_scipy
from sparsepriors.operators.algebra import Adjoint, Composed, Identity, RealToComplex, Reshape, ScaledOperator, Sum
from sparsepriors.operators.base import LinearOperator, Space
from sparsepriors.operators.convolution import Convolution, gaussian_kernel
from sparsepriors.operators.dense import Diagonal, Mask, Matrix, Sampling
from sparsepriors.operators.differences import FiniteDifference
from sparsepriors.operators.elimination import Elimination
from sparsepriors.operators.fourier import FourierTransform
from sparsepriors.operators.kronecker import Kronecker
from sparsepriors.operators.radar import BornMIMO, VoxelGrid, crossed_array
from sparsepriors.operators.stack import BlockDiagonal, Stack
from sparsepriors.operators.wavelet import WaveletTransform, greatest_levels

__all__ = [
    "Adjoint",
    "BlockDiagonal",
    "BornMIMO",
    "Composed",
    "Convolution",
    "Diagonal",
    "Elimination",
    "FiniteDifference",
    "FourierTransform",
    "FunctionOperator",
    "Identity",
    "Kronecker",
    "LinearOperator",
    "Mask",
    "Matrix",
    "NumpyOperator",
    "RealToComplex",
    "Reshape",
    "Sampling",
    "ScaledOperator",
    "Space",
    "Stack",
    "Sum",
    "VoxelGrid",
    "WaveletTransform",
    "crossed_array",
    "from_callable",
    "from_pylops",
    "from_scipy",
    "gaussian_kernel",
    "greatest_levels",
]
