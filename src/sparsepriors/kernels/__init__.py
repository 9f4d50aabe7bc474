"""Packed formats and the few loops that must be fast, with their PyTorch references."""
