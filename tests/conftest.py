"""What every test stands on: shape checking at run time, hypothesis profiles, one thread, a seed per test."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import hypothesis
import jaxtyping
import pytest
import torch

# Before the first import of the package: its functions then check shapes and types when they are called.
jaxtyping.install_import_hook("sparsepriors", "runtime_types.check")

hypothesis.settings.register_profile("ci", max_examples=100, derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.register_profile("nightly", max_examples=1000, deadline=None, print_blob=True)
hypothesis.settings.load_profile("ci")  # another one: pytest --hypothesis-profile nightly

torch.set_num_threads(1)  # pytest-xdist runs one worker per core


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    """A test's draws depend on its own name, not on which tests ran before it."""
    torch.manual_seed(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def generator(request: pytest.FixtureRequest) -> torch.Generator:
    """A generator seeded by the test's name."""
    return torch.Generator().manual_seed(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(autouse=True)
def _public_door(request: pytest.FixtureRequest) -> Iterator[None]:
    """Marked tests of bad input meet the library's own checks: the type checker stands aside for them."""
    if request.node.get_closest_marker("public_door") is None:
        yield
        return
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
