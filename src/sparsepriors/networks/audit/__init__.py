"""An honest account of a sparse training: ten checks, each of which answers with a number."""

from sparsepriors.networks.audit.checks import CHECKS, Finding, Status
from sparsepriors.networks.audit.match import match_dense
from sparsepriors.networks.audit.patterns import PatternGuess, detect_pattern
from sparsepriors.networks.audit.record import (
    KINDS,
    Claimed,
    LayerEvidence,
    TrainingRecord,
    read_record,
    record_training,
    record_weights,
)
from sparsepriors.networks.audit.report import AuditReport, audit, audit_training
from sparsepriors.networks.audit.scaling import SparsityLaw, dense_equivalent, fit_sparsity_law, wins
from sparsepriors.networks.audit.taxonomy import Taxonomy, classify

__all__ = ["CHECKS", "KINDS", "AuditReport", "Claimed", "Finding", "LayerEvidence", "PatternGuess", "SparsityLaw",
           "Status", "Taxonomy", "TrainingRecord", "audit", "audit_training", "classify", "dense_equivalent",
           "detect_pattern", "fit_sparsity_law", "match_dense", "read_record", "record_training", "record_weights",
           "wins"]
