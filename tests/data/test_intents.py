import pytest
import torch

from sparsepriors.data import intents


@pytest.mark.parametrize(("name", "column", "classes", "each"), [
    ("banking77", None, 77, 40), ("clinc150", None, 150, 30), ("clinc150", "domain", 10, 450)])
def test_the_classes_are_those_of_the_set_and_equally_large(name, column, classes, each):
    found = intents(name, column)
    assert len(found.names) == classes
    assert found.names == tuple(sorted(found.names))
    assert found.labels.bincount().tolist() == [each] * classes
    assert len(found.texts) == len(found) == classes * each


def test_parts_share_no_sentence_and_hold_every_class_alike():
    whole = intents("banking77")
    train, test = whole.deal((12, 5), torch.Generator().manual_seed(3))
    assert train.labels.bincount().tolist() == [12] * 77
    assert test.labels.bincount().tolist() == [5] * 77
    rows = {text: (i, int(label)) for i, (text, label) in enumerate(zip(whole.texts, whole.labels, strict=True))}
    assert len(rows) == len(whole)
    assert not set(train.texts) & set(test.texts)
    for text, label in zip(train.texts, train.labels, strict=True):
        assert rows[text][1] == int(label)
    again = whole.deal((12, 5), torch.Generator().manual_seed(3))[0]
    assert again.texts == train.texts
    assert whole.deal((12, 5), torch.Generator().manual_seed(4))[0].texts != train.texts


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="did you mean 'banking77'"):
        intents("banking7")
    with pytest.raises(ValueError, match="column must be one of 'category'"):
        intents("banking77", "domain")
    with pytest.raises(ValueError, match="41 sentences of each class, '.*' has 40"):
        intents().deal((40, 1), torch.Generator())
    with pytest.raises(ValueError, match=r"sizes\[1\] must be at least 1"):
        intents().deal((3, 0), torch.Generator())
