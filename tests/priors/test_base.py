from dataclasses import dataclass

import pytest

from sparsepriors.priors import L1, Prior


@dataclass(frozen=True)
class Constant(Prior, convex=True, accepts_complex=False):
    def _value(self, x):
        return self._sum(0 * x)

    def _prox(self, x, step):
        return x.clone()


@dataclass(frozen=True)
class Heir(Constant, separable=True, convex=False):
    bias: float = 0.0

    @property
    def accepts_complex(self) -> bool:
        return self.bias > 0


def traits(prior: Prior) -> tuple[bool, bool, bool]:
    return prior.convex, prior.separable, prior.accepts_complex


def test_what_a_class_says_of_itself_holds_for_it_and_its_heirs():
    assert traits(Constant()) == (True, False, False)
    assert traits(Heir()) == (False, True, False)
    assert traits(L1(1.0)) == (True, True, True)


def test_an_answer_may_depend_on_the_parameters():
    assert traits(Heir(bias=1.0)) == (False, True, True)


def test_a_class_cannot_say_what_priors_are_not_asked():
    with pytest.raises(TypeError, match="keyword"):
        type("Odd", (Prior,), {}, smooth=True)
