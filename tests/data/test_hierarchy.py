"""Trees of features: who is active with whom, how often, and in which directions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.data.hierarchy import FeatureTree, Node, mixed_dictionary, toy_tree


def test_the_toy_tree_is_the_published_one(generator) -> None:
    tree = toy_tree()
    assert len(tree) == 20
    assert tree.active == pytest.approx(1.36)
    assert tree.groups == ((0, 4, 8, *range(12, 20)), (1, 2, 3), (5, 6, 7), (9, 10, 11))
    a = tree.sample(100_000, generator)
    on = a != 0
    rates = on.float().mean(dim=0)
    expected = torch.full((20,), 0.05)
    expected[[0, 4, 8]] = 0.2
    expected[[1, 2, 3, 5, 6, 7, 9, 10, 11]] = 0.04
    torch.testing.assert_close(rates, expected, rtol=0, atol=0.005)
    for group in tree.groups:
        assert int(on[:, list(group)].sum(dim=1).max()) == 1
    assert bool((on[:, list(tree.groups[0])].sum(dim=1) == 1).all())
    values = a[on]
    assert float(values.mean()) == pytest.approx(1.5, abs=0.01)
    assert float(values.std()) == pytest.approx(0.25, abs=0.01)
    both = on[:, 0] & on[:, 1]
    assert abs(float(torch.corrcoef(a[both][:, :2].mT)[0, 1])) < 0.1


@given(st.integers(0, 1000))
def test_children_are_active_with_their_parents_only(seed: int) -> None:
    tree = FeatureTree(Node(0.8, (Node(0.5, (Node(0.9), Node(0.3, readout=False, children=(Node(0.7),)))),
                                  Node(0.4)), exclusive=seed % 2 == 0))
    g = torch.Generator().manual_seed(seed)
    on = tree.sample(300, g) != 0
    assert tree.parents.tolist() == [-1, 0, 1, 1, 0]
    for i, parent in enumerate(tree.parents.tolist()):
        assert parent < 0 or not bool((on[:, i] & ~on[:, parent]).any())
    again = torch.Generator().manual_seed(seed)
    assert torch.equal(tree.sample(300, again) != 0, on)


def test_rates_multiply_along_the_tree(generator) -> None:
    tree = FeatureTree(Node(0.8, (Node(0.5, (Node(0.9),)), Node(0.4))), spread=0)
    a = tree.sample(50_000, generator)
    torch.testing.assert_close((a != 0).float().mean(dim=0), torch.tensor([0.8, 0.4, 0.36, 0.32]), rtol=0, atol=0.02)
    assert a.unique().tolist() == [0, 1.5]


@given(st.floats(0, 0.95), st.integers(0, 1000))
def test_cosines_are_rho_inside_a_group_and_zero_between(rho: float, seed: int) -> None:
    groups = toy_tree().groups
    F = mixed_dictionary(groups, rho, 24, torch.Generator().manual_seed(seed))
    gram = F @ F.mT
    expected = torch.zeros(20, 20)
    for group in groups:
        for i in group:
            for j in group:
                expected[i, j] = 1 if i == j else rho
    torch.testing.assert_close(gram, expected, rtol=0, atol=2e-6)


@pytest.mark.public_door
@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda g: Node(1.5), ValueError, "probability"), (lambda g: Node(0.5, (3,)), TypeError, "children must be"),
    (lambda g: Node(1.0, (Node(0.6), Node(0.6)), exclusive=True), ValueError, "1.2"),
    (lambda g: FeatureTree(0), TypeError, "root"),
    (lambda g: FeatureTree(Node(1.0, readout=False)), ValueError, "root"),
    (lambda g: toy_tree().sample(-1, g), ValueError, "n must"),
    (lambda g: mixed_dictionary([[0], [0, 1]], 0.1, 4, g), ValueError, "exactly once"),
    (lambda g: mixed_dictionary([[0, 1]], 1.0, 4, g), ValueError, "rho"),
    (lambda g: mixed_dictionary([[0, 1]], 0.5, 1, g), ValueError, "d must"),
])
def test_bad_arguments_are_named(call, error, words, generator) -> None:
    with pytest.raises(error, match=words):
        call(generator)
