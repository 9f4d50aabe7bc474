"""Run folders, evidence, progress and machine records."""

from sparsepriors.runs.paper import Claim, Experiment, Paper, Scale
from sparsepriors.runs.run import Run, run_folder

__all__ = ["Claim", "Experiment", "Paper", "Run", "Scale", "run_folder"]
