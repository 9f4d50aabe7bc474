import pytest
import torch

from dictionaries.paired_toy import TinyLM
from sparsepriors.dictionaries.paired_activations import PairedActivations

TOKENS = torch.randint(11, (7, 6), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tuples", [False, True])
def test_both_models_are_read_at_the_same_tokens_and_no_further(tuples):
    base, chat = TinyLM(0, tuples=tuples), TinyLM(1, tuples=tuples)
    keep = TOKENS != 3
    pairs = PairedActivations(base, chat, TOKENS, "first", keep, rows=3)
    x = pairs.collect()
    assert x.shape == (int(keep.sum()), 2, 5)
    assert [base.second.passes, chat.second.passes] == [0, 0]
    for m, model in enumerate((base, chat)):
        hidden = model.first(model.embed(TOKENS))
        assert torch.allclose(x[:, m], (hidden[0] if tuples else hidden)[keep], atol=1e-6)
    assert torch.equal(torch.cat(list(pairs)), x)
    assert not x.requires_grad


def test_texts_become_windows_without_their_first_tokens():
    def letters(text):
        return {"input_ids": [ord(c) - 97 for c in text]}

    pairs = PairedActivations.from_texts(TinyLM(0), TinyLM(1), (letters, letters), ["abcd", "efghi"], layer="second",
                                         length=4, skip_first=1)
    assert pairs.tokens.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert pairs.collect().shape == (6, 2, 5)


@pytest.mark.public_door
def test_bad_arguments_are_named():
    base, chat = TinyLM(0), TinyLM(1)
    with pytest.raises(ValueError, match="tokens must be integers"):
        PairedActivations(base, chat, TOKENS.float(), "first")
    with pytest.raises(ValueError, match="at least one token"):
        PairedActivations(base, chat, TOKENS[:0], "first")
    with pytest.raises(ValueError, match="got 'firs'; near it: first"):
        PairedActivations(base, chat, TOKENS, "firs")
    with pytest.raises(ValueError, match="keep must have the shape"):
        PairedActivations(base, chat, TOKENS, "first", torch.ones(7, dtype=torch.bool))
    with pytest.raises(ValueError, match="keep must keep at least one"):
        PairedActivations(base, chat, TOKENS, "first", torch.zeros(7, 6, dtype=torch.bool))
    with pytest.raises(ValueError, match="as wide in both models, got 5 and 4"):
        PairedActivations(base, TinyLM(1, d=4), TOKENS, "first").collect()
    chat.embed.weight.data[:] = torch.nan
    with pytest.raises(ValueError, match="output of 'first' holds NaN"):
        PairedActivations(base, chat, TOKENS, "first").collect()
    base.unused = torch.nn.Linear(2, 2)
    chat = TinyLM(1)
    chat.unused = torch.nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match="does not come through 'unused'"):
        PairedActivations(base, chat, TOKENS, "unused").collect()

    def tokenizer(shift):
        return lambda text: {"input_ids": [0, 1, 2 + shift]}

    with pytest.raises(ValueError, match=r"differ in texts\[0\] at token 2"):
        PairedActivations.from_texts(base, chat, (tokenizer(0), tokenizer(1)), ["x"], layer="first", length=2)
    with pytest.raises(ValueError, match="fill a window of 4 tokens, got 3"):
        PairedActivations.from_texts(base, chat, (tokenizer(0), tokenizer(0)), ["x"], layer="first", length=4)
