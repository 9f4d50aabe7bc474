"""Reconstruction from instruments."""

from sparsepriors.imaging import corruptions, metrics, mri, radar, sampling, training

__all__ = ["corruptions", "metrics", "mri", "radar", "sampling", "training"]
