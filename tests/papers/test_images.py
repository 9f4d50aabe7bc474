import pytest
import torch

from sparsepriors.papers import get
from sparsepriors.papers._images import ImageSizes
from sparsepriors.runs import Run, Scale


def drawn(folder, seed, *sizes):
    return ImageSizes("digits8", 1, *sizes).draw(Run.start(get("sr-ste"), folder, scale=Scale.SMOKE, seed=seed))


def test_the_examples_of_a_seed_do_not_overlap_and_are_drawn_by_it_alone(tmp_path):
    a, again, other = (drawn(tmp_path / name, seed, 900, 500, 100) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert torch.equal(a.train[0], again.train[0])
    assert torch.equal(a.test[1], again.test[1])
    assert not torch.equal(a.train[0], other.train[0])
    pictures = {bytes(x.numpy().data) for x in a.train[0]}
    assert not pictures & {bytes(x.numpy().data) for x in a.held[0]}
    assert [len(part[1]) for part in (a.train, a.held, a.test)] == [900, 500, 100]


@pytest.mark.parametrize("held", [0, 7])
def test_what_is_held_back_changes_neither_training_nor_test_examples(tmp_path, held):
    a, b = (drawn(tmp_path / str(h), 3, 40, h, 50) for h in (held, 20))
    assert torch.equal(a.train[0], b.train[0])
    assert torch.equal(a.test[0], b.test[0])
    assert torch.equal(a.held[1], b.held[1][:held])
    assert a.held[0].shape == (held, 1, 8, 8)
