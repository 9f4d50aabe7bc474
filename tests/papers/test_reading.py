import torch

from sparsepriors.language.stand_in import stand_in
from sparsepriors.papers._reading import facts, windows


def test_every_seed_reads_windows_of_its_own():
    _, letters = stand_in()
    first, second = (windows(letters, 50, 1, seed) for seed in (0, 1))
    assert first.shape == (1, 50)
    assert not torch.equal(first, second)
    assert torch.equal(windows(letters, 50, 2, 0), torch.cat([first, second]))
    assert torch.equal(windows(letters, 50, 2, 1)[0], windows(letters, 50, 1, 2)[0])


def test_prompts_state_what_they_ask():
    prompts = facts(6, 20, seed=3)
    assert len(prompts) == 6
    assert prompts == facts(6, 20, seed=3) != facts(6, 20, seed=4)
    for prompt, answer in prompts:
        name = prompt.rsplit("The code of ", 1)[1].removesuffix(" is")
        assert f"The code of {name} is{answer}.\n" in prompt
        assert prompt.count("What is the code of") == 3
