import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.networks.sparse.moves import cosine, drop, grow, in_time_density, jaccard, redistributed, sad

cases = st.tuples(st.integers(1, 40), st.integers(0, 99), st.booleans())


def drawn(size, seed, ties):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(size, generator=generator) < 0.5
    score = torch.rand(size, generator=generator)
    return mask, (score * 4).round() if ties else score


@given(cases, st.floats(0, 1))
def test_drop_removes_exactly_the_least(case, share):
    mask, score = drawn(*case)
    count = int(share * int(mask.sum()))
    left = drop(mask, score, count)
    assert bool((left <= mask).all())
    gone = mask & ~left
    assert int(gone.sum()) == count
    assert count == 0 or not left.any() or score[gone].max() <= score[left].min()
    for i in gone.nonzero():   # of equal scores those of higher index go
        assert not bool((left[i + 1:] & (score[i + 1:] == score[i])).any())


@given(cases, st.floats(0, 1))
def test_grow_adds_exactly_the_best(case, share):
    mask, score = drawn(*case)
    count = int(share * int((~mask).sum()))
    more = grow(mask, score, count)
    assert bool((mask <= more).all())
    new = more & ~mask
    assert int(new.sum()) == count
    assert count == 0 or more.all() or score[new].min() >= score[~more].max()


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 50)), min_size=1, max_size=6), st.floats(0, 1))
def test_redistribution_adds_up_and_respects_the_room(layers, share):
    shares = {str(i): s for i, (s, _) in enumerate(layers)}
    room = {str(i): r for i, (_, r) in enumerate(layers)}
    total = int(share * sum(room.values()))
    counts = redistributed(total, shares, room)
    assert sum(counts.values()) == total
    assert all(0 <= counts[n] <= room[n] for n in room)


def test_redistribution_is_proportional_where_there_is_room():
    assert redistributed(10, {"a": 3.0, "b": 1.0, "c": 1.0}, {"a": 99, "b": 99, "c": 99}) == {"a": 6, "b": 2, "c": 2}
    with pytest.raises(ValueError, match="4 entries do not fit into 3"):
        redistributed(4, {"a": 1.0}, {"a": 3})


def test_distances_of_masks():
    a = {"w": torch.tensor([True, True, False, False])}
    b = {"w": torch.tensor([True, False, True, False])}
    assert sad(a, b) == 2
    assert jaccard(a, b) == pytest.approx(1 / 3)
    assert cosine(a, b) == pytest.approx(float(torch.cosine_similarity(a["w"].float(), b["w"].float(), dim=0)))
    assert cosine(a, {"w": ~a["w"] & a["w"]}) == 0
    assert jaccard({"w": ~a["w"] & a["w"]}, {"w": ~a["w"] & a["w"]}) == 1
    assert in_time_density({"w": a["w"] | b["w"]}) == 0.75
    with pytest.raises(ValueError, match="same weights"):
        sad(a, {"v": b["w"]})
    with pytest.raises(ValueError, match="same weights"):
        jaccard(a, {"w": b["w"][:3]})
    with pytest.raises(ValueError, match="count"):
        drop(a["w"], torch.rand(4), 3)
    with pytest.raises(ValueError, match="count"):
        grow(a["w"], torch.rand(4), 3)
