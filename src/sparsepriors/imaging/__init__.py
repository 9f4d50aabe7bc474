"""Reconstruction from instruments."""

from sparsepriors.imaging import metrics, mri, radar, sampling, training

__all__ = ["metrics", "mri", "radar", "sampling", "training"]
