import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparsepriors.networks.audit import PatternGuess, detect_pattern, match_dense
from sparsepriors.networks.audit.match import weights
from sparsepriors.networks.audit.patterns import nonzeros
from sparsepriors.networks.models.small import MLP
from sparsepriors.priors.patterns import NM, Block, Channel, Unstructured


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(st.sampled_from([(1, 4), (2, 4), (4, 8), (1, 16), (3, 32)]), st.sampled_from([0, 1]), st.integers(0, 99))
def test_groups_are_found_with_their_axis(nm, axis, seed):
    guess = detect_pattern(NM(*nm, dim=axis).project(drawn(seed, 96, 64)))
    assert guess.kind == "n:m"
    assert guess.axis == axis
    assert guess.n is not None
    assert guess.m is not None
    assert guess.n * nm[1] == guess.m * nm[0]
    assert guess.m <= nm[1]


@given(st.floats(0.05, 0.99), st.integers(0, 99))
def test_random_zeros_are_no_pattern(density, seed):
    scores = drawn(seed, 64, 64)
    assert detect_pattern(torch.where(Unstructured(density).mask(scores), scores, 0)).kind == "unstructured"


@given(st.integers(0, 99))
def test_channels_blocks_and_dense_weights_are_told_apart(seed):
    x = drawn(seed, 64, 64)
    assert detect_pattern(x) == PatternGuess("dense")
    for axis in (0, 1):
        assert detect_pattern(Channel(0.5, dim=axis).project(x)) == PatternGuess("channel", axis=axis)
    found = detect_pattern(Block(0.4, (8, 8)).project(x))
    assert (found.kind, found.m) == ("block", 8)
    kernel = drawn(seed, 16, 16, 3, 3)
    assert detect_pattern(NM(2, 4, dim=1).project(kernel)) == PatternGuess("n:m", 2, 4, 1, sure=False)


def test_negative_zeros_and_denormals_are_zeros():
    w = torch.tensor([[-0.0, 1.0], [1e-42, 0.0]])
    assert nonzeros(w) == 1
    assert detect_pattern(torch.where(Channel(0.5).mask(drawn(0, 64, 64)), 1.0, -0.0)).kind == "channel"


@given(st.integers(300, 20_000))
def test_the_small_dense_network_is_the_largest_that_fits(target):
    def net(width):
        return MLP(hidden=(width, width), size=4)

    width = match_dense(net, target, weights, high=200)
    assert weights(net(width)) <= target < weights(net(width + 1))


@pytest.mark.public_door
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="at least two axes"):
        detect_pattern(torch.ones(5))
    with pytest.raises(ValueError, match="width 1 already measures 6, more than 5"):
        match_dense(lambda w: nn.Linear(2, 3), 5, weights)
