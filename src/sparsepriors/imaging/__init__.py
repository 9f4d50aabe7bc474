"""Reconstruction from instruments."""
