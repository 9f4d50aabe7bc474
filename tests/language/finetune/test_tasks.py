import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from sparsepriors.language.finetune import Addition, gsm8k_answer, gsm8k_reward


@given(st.sampled_from([1, 2, 3]), st.sampled_from("+-"), st.integers(0, 999), st.integers(0, 999))
def test_written_answers_read_back_as_arithmetic(digits, operation, a, b):
    a, b = a % 10**digits, b % 10**digits
    task = Addition(digits, operation)
    answers = task.answers(torch.tensor([[a, b]]))
    text = task.decode(answers.tokens[0])
    question, answer = text.split("=")
    assert question == f"{a:0{digits}}{operation}{b:0{digits}}"
    assert answer[-1] == "."
    assert len(answer) == task.answer_length
    value = int(answer[digits - 1::-1])
    if operation == "+":
        assert value + 10**digits * int(answer[digits]) == a + b
    else:
        assert (-value if answer[digits] == "-" else value) == a - b
    assert bool(task.correct(answers))
    assert int(answers.mask.sum()) == task.answer_length
    assert torch.equal(task.encode(text), answers.tokens[0])


def test_a_wrong_character_anywhere_is_no_reward():
    task = Addition()
    problems = torch.tensor([[37, 85]])
    right = task.gold(problems)
    assert task.decode(right[0]) == "221."
    for place in range(4):
        wrong = right.clone()
        wrong[0, place] = (wrong[0, place] + 1) % task.vocabulary
        assert float(task.reward(task.answered(problems, wrong))) == 0
    assert float(task.reward(task.answers(problems))) == 1
    with pytest.raises(ValueError, match="must have 4 tokens after the prompt, got 3"):
        task.reward(task.answered(problems, right[:, :3]))


def test_a_split_is_a_partition(generator):
    task = Addition(1)
    train, test = task.split(30, generator=generator)
    assert (len(train), len(test)) == (70, 30)
    assert {tuple(p) for p in train.tolist()} | {tuple(p) for p in test.tolist()} == {
        tuple(p) for p in task.problems().tolist()}
    with pytest.raises(ValueError, match="held_out"):
        task.split(100, generator=generator)


@pytest.mark.public_door
def test_other_tasks_are_refused():
    with pytest.raises(ValueError, match="operation"):
        Addition(2, "*")
    with pytest.raises(ValueError, match="digits"):
        Addition(0)
    with pytest.raises(ValueError, match="got 'x'"):
        Addition().encode("2x3")


@pytest.mark.parametrize(("text", "number"), [
    ("He has 3 + 4 = <<3+4=7>>7 eggs.\n#### 7", 7), ("#### 1,234", 1234), ("the price is $18.50.", 18.5),
    ("first 3, then -2.", -2), ("#### -5 or 6", -5), ("nothing", None), ("", None), ("#### none", None)])
def test_the_number_of_a_worked_answer(text, number):
    assert gsm8k_answer(text) == number


def test_the_reward_compares_numbers():
    assert gsm8k_reward("so it is 7.0 dollars", "#### 7") == 1
    assert gsm8k_reward("so it is 70 dollars", "#### 7") == 0
    assert gsm8k_reward("no idea", "#### 7") == 0
    with pytest.raises(ValueError, match="answer must hold a number, got 'x'"):
        gsm8k_reward("7", "x")
