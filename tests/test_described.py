"""Objects as JSON: what comes back, and what is refused."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from sparsepriors._described import Described
from sparsepriors.priors import L1, Box, Scaled
from sparsepriors.priors.base import Prior


@dataclasses.dataclass(frozen=True)
class Holds(Described):
    """A field of any kind."""

    value: object


@pytest.mark.parametrize("value", [
    torch.tensor([[1.5, -2.0]]), torch.tensor([1 + 2j]), torch.tensor([math.inf, -math.inf, 0.0]), torch.zeros(0, 3),
    torch.tensor([True, False]), torch.tensor([2**40, -1]), torch.tensor(3.0).bfloat16(),
    torch.tensor([complex(1.0, -math.inf)]),
], ids=str)
def test_tensors_come_back_through_strict_json(value):
    text = json.dumps(Holds(value).to_dict(), allow_nan=False)
    found = Holds.from_dict(json.loads(text)).value
    assert isinstance(found, torch.Tensor)
    assert found.dtype == value.dtype
    assert torch.equal(found, value)


@pytest.mark.parametrize("value", [1, 2.5, math.inf, None, True, "text", 1 - 2j, torch.float64, (1, (2.0, "x")),
                                   L1(0.5)])
def test_values_come_back_through_strict_json(value):
    assert Holds.from_dict(json.loads(json.dumps(Holds(value).to_dict(), allow_nan=False))).value == value
    found = Holds.from_dict(json.loads(json.dumps(Holds(math.nan).to_dict(), allow_nan=False))).value
    assert isinstance(found, float)
    assert math.isnan(found)


@pytest.mark.parametrize("value", [np.float32(0.25), np.float64(0.25), np.float32(np.inf), np.int64(3), np.int8(-1)])
def test_numbers_of_numpy_come_back_as_those_of_python(value):
    found = Holds.from_dict(json.loads(json.dumps(Holds(value).to_dict(), allow_nan=False))).value
    assert found == value
    assert type(found) is (int if isinstance(value, np.integer) else float)


def test_infinite_bounds_come_back():
    box = Box(torch.tensor([-math.inf, 0.0]), torch.tensor([0.0, math.inf]))
    found = Prior.from_dict(json.loads(json.dumps(box.to_dict(), allow_nan=False)))
    assert isinstance(found, Box)
    assert isinstance(found.low, torch.Tensor)
    assert torch.equal(found.low, torch.tensor([-math.inf, 0.0]))


def test_what_has_no_form_is_named():
    with pytest.raises(TypeError, match=r"Holds\.value\[1\] holds a object, which has no JSON form"):
        Holds([1, object()]).to_dict()

    class Loose(Described):
        pass

    with pytest.raises(TypeError, match="Loose is not a dataclass"):
        Loose().to_dict()


def test_a_name_in_files_means_one_class():
    with pytest.raises(TypeError, match=r"elsewhere\.L1 needs another name: files say 'L1' for sparsepriors\.priors"):
        type("L1", (Described,), {"__module__": "elsewhere"})
    assert Described._registry["L1"] is L1


def test_nesting_within_reason_is_read():
    prior = L1(1.0)
    for _ in range(40):
        prior = Scaled(prior, 2.0)
    assert Prior.from_dict(prior.to_dict()) == prior


def test_a_field_that_takes_the_name_of_the_class_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Confusing(Described):
        kind: str = "a"

    with pytest.raises(TypeError, match="has a field 'kind', which the JSON form keeps for the class"):
        Confusing().to_dict()
