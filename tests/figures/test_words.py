"""Word errors against what is counted by hand."""

from __future__ import annotations

import pytest

from edge_agent.figures.words import errors, plain


@pytest.mark.parametrize(
    ("said", "heard", "wrong"),
    [
        ("", "", 0),
        ("a b c", "a b c", 0),
        ("a b c", "", 3),
        ("", "a b", 2),
        ("a b c", "a x c", 1),
        ("a b c", "a c", 1),
        ("a b c", "a b b c", 1),
        ("a b c d", "b c d e", 2),
    ],
)
def test_errors_are_the_fewest_changes(said: str, heard: str, wrong: int) -> None:
    assert errors(said.split(), heard.split()) == wrong


def test_words_are_plain() -> None:
    assert plain(" It’s cold-hearted, 'really'!  Is it? ") == ["it's", "cold", "hearted", "really", "is", "it"]
