"""Sparse training as one machine: a plan says where, how much, in which pattern, by which score, when, and how."""

from sparsepriors.networks.sparse.at_init import GraSPScore, SNIPScore, SynFlowScore, XavierSNIPScore
from sparsepriors.networks.sparse.channels import ChannelGroup, trace_groups
from sparsepriors.networks.sparse.connectivity import Connectivity, connectivity
from sparsepriors.networks.sparse.distribute import (
    ERK,
    Bernoulli,
    Custom,
    Distribution,
    Global,
    Shuffled,
    Uniform,
    UniformPlus,
)
from sparsepriors.networks.sparse.frozen import FreezeOutside
from sparsepriors.networks.sparse.graph import ramanujan_gap, spectral_gap
from sparsepriors.networks.sparse.hook import Sparsify
from sparsepriors.networks.sparse.ift import IsoFLOP, solve_budget, sparse_ift
from sparsepriors.networks.sparse.ledger import LayerRecord, SparsityReport, sparsity_report
from sparsepriors.networks.sparse.moves import cosine, in_time_density, jaccard, sad
from sparsepriors.networks.sparse.plan import SparsePlan
from sparsepriors.networks.sparse.presets import PRESETS, preset
from sparsepriors.networks.sparse.probes import GradientNoise, SADTracker
from sparsepriors.networks.sparse.report import TrainingReport
from sparsepriors.networks.sparse.rule import SRSTE, STE, Flow, Masked, Rule
from sparsepriors.networks.sparse.scales import ScalePrior, scales, threshold_ot
from sparsepriors.networks.sparse.schedule import (
    Alternating,
    AtInit,
    Event,
    EveryStep,
    OneShot,
    Periodic,
    Polynomial,
    Rounds,
    Schedule,
    StructureDecay,
)
from sparsepriors.networks.sparse.score import (
    GradientScore,
    MagnitudeScore,
    MomentumScore,
    Probe,
    RandomScore,
    SaliencyScore,
    Score,
    ScoreFunction,
    UnfiredScore,
    View,
)
from sparsepriors.networks.sparse.select import Selected, Selector, select
from sparsepriors.networks.sparse.sparsifier import Sparsifier
from sparsepriors.networks.sparse.surgery import prune_channels, settle_masks, vote, zero_channels

__all__ = [
    "ERK",
    "PRESETS",
    "SRSTE",
    "STE",
    "Alternating",
    "AtInit",
    "Bernoulli",
    "ChannelGroup",
    "Connectivity",
    "Custom",
    "Distribution",
    "Event",
    "EveryStep",
    "Flow",
    "FreezeOutside",
    "Global",
    "GraSPScore",
    "GradientNoise",
    "GradientScore",
    "IsoFLOP",
    "LayerRecord",
    "MagnitudeScore",
    "Masked",
    "MomentumScore",
    "OneShot",
    "Periodic",
    "Polynomial",
    "Probe",
    "RandomScore",
    "Rounds",
    "Rule",
    "SADTracker",
    "SNIPScore",
    "SaliencyScore",
    "ScalePrior",
    "Schedule",
    "Score",
    "ScoreFunction",
    "Selected",
    "Selector",
    "Shuffled",
    "SparsePlan",
    "Sparsifier",
    "Sparsify",
    "SparsityReport",
    "StructureDecay",
    "SynFlowScore",
    "TrainingReport",
    "UnfiredScore",
    "Uniform",
    "UniformPlus",
    "View",
    "XavierSNIPScore",
    "connectivity",
    "cosine",
    "in_time_density",
    "jaccard",
    "preset",
    "prune_channels",
    "ramanujan_gap",
    "sad",
    "scales",
    "select",
    "settle_masks",
    "solve_budget",
    "sparse_ift",
    "sparsity_report",
    "spectral_gap",
    "threshold_ot",
    "trace_groups",
    "vote",
    "zero_channels",
]
