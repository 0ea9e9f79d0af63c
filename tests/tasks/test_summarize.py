"""Summaries by extraction, of a text and of a while."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_agent.errors import ConfigError, InputError
from edge_agent.events import SummaryEvent
from edge_agent.events.understood import Summary
from edge_agent.manifest import Served
from edge_agent.tasks import make_task
from edge_agent.tasks.text import summarize as module
from edge_agent.tasks.text.summarize import Summarizer, central
from edge_agent.types import Finding, Text
from edge_agent.uri import parse_uri
from edge_agent.walk.event import to_event
from tests.tasks.test_follows import COURT, KITCHEN, told_by
from tests.tasks.text_models import bert


def task(model: Served, options: str = "") -> Summarizer:
    made = make_task(parse_uri(f"summarize:m{options}"), lambda _: model, Path())
    assert isinstance(made, Summarizer)
    return made


def summary(found: Finding) -> Summary:
    assert isinstance(found.what, Summary)
    return found.what


def test_the_centre_without_repeats_in_the_order_of_the_text(edge_bert: Served) -> None:
    text = ". ".join(line.capitalize() for line in [COURT[0], *KITCHEN, KITCHEN[5], KITCHEN[5]]) + "."
    (found,) = task(edge_bert, "?top=3")(Text(text, 5.0, 0.0))
    what = summary(found)
    assert (len(what.sentences), what.of, what.since) == (3, 13, 5.0)
    assert [text.index(one) for one in what.sentences] == sorted(text.index(one) for one in what.sentences)
    assert len(set(what.sentences)) == 3 and COURT[0].capitalize() + "." not in what.sentences
    with pytest.raises(InputError, match="no letter"):
        list(task(edge_bert)(Text("…", 0.0, 0.0)))


def test_the_rows_nearest_to_the_mean() -> None:
    rows = np.array([[1, 0.1], [1, 0.11], [0.2, 1], [0.8, 0.8], [-1, 0]], np.float32)
    assert (central(rows, 1) == [3] and central(rows, 2) == [2, 3]) or central(rows, 2)[-1] == 3
    assert len(central(rows, 5)) < 5, "the second is like the first"


def test_a_recap_comes_when_its_while_is_over_or_the_lines_end(tmp_path: Path) -> None:
    made = task(bert(tmp_path), "?every=1h&top=2")
    lines = [("rain and storm", 10.0), ("the river", 3599.0), ("play a song", 3700.0), ("music loud", 3710.0)]
    found = told_by(made, [Text(text, at, 0.0, mark=7) for text, at in lines])
    assert [(summary(one).of, summary(one).since) for one in found] == [(2, 10.0), (2, 3700.0)]
    assert [one.of.mark for one in found] == [None, None]
    event = to_event(found[0], "p")
    assert isinstance(event, SummaryEvent) and event.since == "1970-01-01T00:00:10.000Z"
    assert list(made.ended()) == []


def test_of_very_many_lines_some_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 20)
    made = task(bert(tmp_path), "?every=1d")
    for n in range(300):
        list(made(Text(f"rain and storm number {n}", float(n), 0.0)))
    assert len(made._kept) == 20 and sum(n >= 20 for n, _, _ in made._kept) > 5
    (found,) = made.ended()
    assert summary(found).of == 300


@pytest.mark.parametrize("options", ["?every=day", "?every=0h", "?every=1w", "?top=0"])
def test_options_are_checked(tmp_path: Path, options: str) -> None:
    with pytest.raises(ConfigError, match=r"every=|top="):
        task(bert(tmp_path), options)
