"""What is believed about an unknown tensor."""

from sparsepriors.priors.base import Prior
from sparsepriors.priors.codes import BatchTopK, CodePrior, Matryoshka, Pursuit, TopK
from sparsepriors.priors.combinators import Groups, Magnitude, PlugAndPlay, PlusQuadratic, Scaled, Translated
from sparsepriors.priors.denoisers import Denoiser, UNet
from sparsepriors.priors.jumprelu import JumpReLU
from sparsepriors.priors.kv import (
    ChannelStructured,
    KVPattern,
    PerChannelMagnitude,
    PerChannelOutputAware,
    PerTokenMagnitude,
    PerTokenOutputAware,
)
from sparsepriors.priors.low_rank_sparse import LowRankPlusSparse, largest_entries
from sparsepriors.priors.nonconvex import CEL0, L0, MCP, SCAD, LogSum, Lq
from sparsepriors.priors.partition import Partition
from sparsepriors.priors.patterns import (
    NM,
    AtLeastNM,
    Balanced,
    Block,
    Channel,
    OutputBlocks,
    Pattern,
    Unstructured,
    pack_mask,
    unpack_mask,
)
from sparsepriors.priors.penalties import L1, ElasticNet, GroupL2, Huber, Logistic, SquaredL2, Zero
from sparsepriors.priors.sets import Box, Cardinality, L1Ball, L2Ball, LinfBall, NonNegative, Rank, Simplex
from sparsepriors.priors.spectral import SLOPE, NuclearNorm
from sparsepriors.priors.tokens import (
    AttentionSinkWindow,
    HeavyHitter,
    LocalWindow,
    OracleTopK,
    SparseWindow,
    Strided,
    TokenSelector,
)
from sparsepriors.priors.total_variation import TV
from sparsepriors.priors.transforms import Conjugate, InBasis
from sparsepriors.priors.variances import KroneckerVariances

__all__ = [
    "CEL0",
    "L0",
    "L1",
    "MCP",
    "NM",
    "SCAD",
    "SLOPE",
    "TV",
    "AtLeastNM",
    "AttentionSinkWindow",
    "Balanced",
    "BatchTopK",
    "Block",
    "Box",
    "Cardinality",
    "Channel",
    "ChannelStructured",
    "CodePrior",
    "Conjugate",
    "Denoiser",
    "ElasticNet",
    "GroupL2",
    "Groups",
    "HeavyHitter",
    "Huber",
    "InBasis",
    "JumpReLU",
    "KVPattern",
    "KroneckerVariances",
    "L1Ball",
    "L2Ball",
    "LinfBall",
    "LocalWindow",
    "LogSum",
    "Logistic",
    "LowRankPlusSparse",
    "Lq",
    "Magnitude",
    "Matryoshka",
    "NonNegative",
    "NuclearNorm",
    "OracleTopK",
    "OutputBlocks",
    "Partition",
    "Pattern",
    "PerChannelMagnitude",
    "PerChannelOutputAware",
    "PerTokenMagnitude",
    "PerTokenOutputAware",
    "PlugAndPlay",
    "PlusQuadratic",
    "Prior",
    "Pursuit",
    "Rank",
    "Scaled",
    "Simplex",
    "SparseWindow",
    "SquaredL2",
    "Strided",
    "TokenSelector",
    "TopK",
    "Translated",
    "UNet",
    "Unstructured",
    "Zero",
    "largest_entries",
    "pack_mask",
    "unpack_mask",
]
