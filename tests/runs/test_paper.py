"""What a paper states about itself is checked when it is stated."""

import math
from typing import Any

import pytest

from sparsepriors.runs import Claim, Paper

CLAIM: dict[str, Any] = {"id": "a", "text": "ours is better", "published": "not reported", "baseline": "l1"}
PAPER: dict[str, Any] = {"slug": "a-paper", "title": "t", "authors": "a", "year": 2020, "url": "https://example.org",
                         "room": "priors", "method": ("one line",), "claims": (Claim(**CLAIM),)}


@pytest.mark.public_door
@pytest.mark.parametrize(("change", "message"), [
    ({"margin": math.nan}, "Claim.margin must be a finite number"), ({"margin": "1"}, "Claim.margin must be"),
    ({"better": "more"}, "Claim.better must be one of"), ({"text": ""}, "Claim.text must be one non-empty line"),
    ({"text": "two\nlines"}, "one non-empty line"), ({"baseline": "x" * 300}, "at most 240 characters"),
    ({"id": "Not a slug"}, "Claim.id must be lower-case words"),
])
def test_claims(change, message):
    with pytest.raises(ValueError, match=message):
        Claim(**{**CLAIM, **change})


@pytest.mark.public_door
@pytest.mark.parametrize(("change", "error", "message"), [
    ({"method": ()}, ValueError, "Paper.method must be a tuple of one to five lines"),
    ({"method": ("l",) * 6}, ValueError, "one to five lines"), ({"method": ["l"]}, ValueError, "one to five lines"),
    ({"method": (" ",)}, ValueError, "Paper.method must be one non-empty line"),
    ({"claims": [Claim(**CLAIM)]}, TypeError, "Paper.claims must be a tuple of Claim"),
    ({"claims": ("a",)}, TypeError, "Paper.claims must be a tuple of Claim"),
    ({"claims": (Claim(**CLAIM),) * 2}, ValueError, "must have unique ids, got a, a"),
    ({"seeds": ()}, ValueError, "a tuple of distinct seeds"), ({"seeds": (1, 1)}, ValueError, "distinct seeds"),
    ({"seeds": (-1,)}, ValueError, "Paper.seeds must be at least 0"), ({"year": 20}, ValueError, "Paper.year"),
    ({"title": 3}, ValueError, "Paper.title"), ({"slug": "-"}, ValueError, "Paper.slug"),
])
def test_papers(change, error, message):
    with pytest.raises(error, match=message):
        Paper(**{**PAPER, **change})


def test_a_claim_is_found_by_its_id():
    assert Paper(**PAPER).claim("a").text == "ours is better"
    with pytest.raises(ValueError, match="claim id must be one of 'a', got 'b'"):
        Paper(**PAPER).claim("b")
