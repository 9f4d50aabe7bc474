import pytest
import torch

from sparsepriors.networks.sparse import PRESETS, Masked, SparsePlan
from sparsepriors.priors import Unstructured
from sparsepriors.testing import check_sparsifier, sparsifier_checks
from sparsepriors.testing.sparsifier import plans


def test_every_preset_is_in_the_list():
    assert set(plans()) == set(PRESETS)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_keeps_the_contract(name):
    plan = plans()[name]
    ran = check_sparsifier(plan)
    skipped = {"weights-outside-the-masks-are-zero"} if plan.rule.keeps_pruned else set()
    assert set(ran) == set(sparsifier_checks()) - skipped


class Leaking(Masked):
    """Lets a little of the gradient through to weights outside the mask, and says that they keep their values."""

    keeps_pruned = True

    def gradient(self, g: torch.Tensor, w: torch.Tensor, mask: torch.Tensor, beta: float) -> torch.Tensor:
        return g + torch.rand(()) * 0.1


def test_a_rule_that_draws_from_torchs_own_generator_is_caught():
    with pytest.raises(AssertionError, match="global-randomness-is-left-alone"):
        check_sparsifier(SparsePlan(Unstructured(0.5), rule=Leaking()))
