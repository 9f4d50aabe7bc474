"""What is measured: linear operators with exact adjoints."""

from sparsepriors.operators.algebra import Adjoint, Composed, Identity, RealToComplex, Reshape, Scaled, Sum
from sparsepriors.operators.base import LinearOperator
from sparsepriors.operators.dense import Diagonal, Mask, Matrix, Sampling
from sparsepriors.operators.differences import FiniteDifference
from sparsepriors.operators.fourier import FourierTransform
from sparsepriors.operators.radar import BornMIMO, VoxelGrid, crossed_array

__all__ = [
    "Adjoint",
    "BornMIMO",
    "Composed",
    "Diagonal",
    "FiniteDifference",
    "FourierTransform",
    "Identity",
    "LinearOperator",
    "Mask",
    "Matrix",
    "RealToComplex",
    "Reshape",
    "Sampling",
    "Scaled",
    "Sum",
    "VoxelGrid",
    "crossed_array",
]
