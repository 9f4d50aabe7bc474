import pytest
import torch

from sparsepriors.data.paired_features import COUNTS, Kind, PairedFeatures, paired_features


def drawn(seed=0, **options):
    return paired_features(generator=torch.Generator().manual_seed(seed), **options)


def test_features_are_as_specified():
    features = drawn()
    assert [int((features.kind == k).sum()) for k in Kind] == list(COUNTS)
    assert torch.allclose(features.directions.norm(dim=2), torch.ones(2, sum(COUNTS)), atol=1e-6)
    cosines = (features.directions[0] * features.directions[1]).sum(dim=1)
    assert 0.98 < float(cosines.min()) < 1
    assert float(features.probability.min()) >= 0.008
    assert float(features.probability.max()) <= 0.06
    weak = features.strength[0, features.kind == Kind.WEAK]
    assert float(weak.min()) >= 0.25
    assert float(weak.max()) <= 0.5
    assert features.strength[0, features.kind == Kind.SECOND_ONLY].eq(0).all()
    assert features.strength[1, features.kind == Kind.FIRST_ONLY].eq(0).all()
    assert features.active == pytest.approx(3.4, abs=0.8)


@pytest.mark.parametrize("kind", list(Kind))
def test_each_kind_shows_in_the_two_models_as_its_name_says(kind):
    counts = tuple(int(k == kind) for k in Kind)
    features = drawn(counts=counts, noise=0.0)
    x = features.sample(80_000, torch.Generator().manual_seed(1))
    first, second = ((x[:, m] @ features.directions[m, 0]) for m in (0, 1))
    fired = (first != 0) | (second != 0)
    assert float(fired.float().mean()) == pytest.approx(float(features.probability[0]), rel=0.1)
    first, second = first[fired], second[fired]
    if kind == Kind.SHARED:
        assert torch.allclose(first, second, atol=1e-5)
    elif kind == Kind.WEAK:
        assert torch.allclose(first, second * features.strength[0, 0], atol=1e-5)
    elif kind == Kind.SECOND_ONLY:
        assert first.eq(0).all()
        assert float(second.min()) >= 0.2 - 1e-5
    elif kind == Kind.FIRST_ONLY:
        assert second.eq(0).all()
    else:
        one_sided = (first.abs() < 1e-6) | (second.abs() < 1e-6)
        assert float(one_sided.float().mean()) == pytest.approx(0.15, abs=0.03)
        # In events that both see, half of the first's magnitude is the second's: correlation 1 / sqrt(2).
        both = torch.stack([first[~one_sided], second[~one_sided]])
        assert float(torch.corrcoef(both)[0, 1]) == pytest.approx(0.5**0.5, abs=0.05)


def test_the_generator_alone_decides():
    features = drawn()
    again = [features.sample(50, torch.Generator().manual_seed(s)) for s in (3, 3, 4)]
    assert torch.equal(again[0], again[1])
    assert not torch.equal(again[0], again[2])


def test_latents_are_matched_by_direction_whatever_their_length():
    features = drawn()
    rows = torch.cat([3 * features.directions[1, [5, 2]], torch.zeros(1, 48), -features.directions[1, :1]])
    assert features.nearest(rows).tolist() == [5, 2, -1, -1]
    assert features.nearest(features.directions[0, :9], model=0).tolist() == list(range(9))


@pytest.mark.public_door
def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="counts must have one entry"):
        drawn(counts=(3, 2))
    with pytest.raises(ValueError, match="sum of counts"):
        drawn(counts=(0, 0, 0, 0, 0))
    with pytest.raises(ValueError, match="count must be at least 1"):
        drawn().sample(0, torch.Generator())
    features = drawn()
    with pytest.raises(ValueError, match="directions must have shape"):
        PairedFeatures(features.directions[:1], features.strength, features.kind, features.probability)
    with pytest.raises(ValueError, match="kind must have shape"):
        PairedFeatures(features.directions, features.strength, features.kind[1:], features.probability)
    with pytest.raises(ValueError, match="probability must be at most 1"):
        PairedFeatures(features.directions, features.strength, features.kind, features.probability * 50)
    with pytest.raises(ValueError, match=r"decoder must have shape \(latents, 48\)"):
        features.nearest(torch.ones(3, 4))
    with pytest.raises(ValueError, match="model must be from 0 to 1"):
        features.nearest(torch.ones(3, 48), model=2)
