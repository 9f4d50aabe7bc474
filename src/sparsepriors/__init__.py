"""Priors as objects: penalties, sets, patterns and denoisers with one interface, and the systems built on them."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("sparsepriors")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0+unknown"
