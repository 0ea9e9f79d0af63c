"""Next sentences, and the topics of a stream of lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from edge_agent.errors import InputError
from edge_agent.events import TopicEvent
from edge_agent.events.understood import Topic
from edge_agent.manifest import Served
from edge_agent.samples.everyday import SENTENCES
from edge_agent.serving.models import Models
from edge_agent.tasks import make_task
from edge_agent.tasks.text.follows import Follower, follower
from edge_agent.tasks.text.topics import Topics
from edge_agent.types import Finding, Scores, Task, Text
from edge_agent.uri import parse_uri
from edge_agent.walk.event import to_event
from edge_agent.walk.pipeline import Stats, run
from edge_agent.walk.report import reporter
from tests.nets import write_onnx
from tests.tasks.text_models import WORDS, vocabulary

KITCHEN = [
    "chop the onions and fry them in butter",
    "add the garlic and stir for a minute",
    "pour in the stock and let the soup boil",
    "season it with salt and pepper",
    "cut the bread into thick slices",
    "fry the bread in the butter until it is brown",
    "put the bread into the soup",
    "serve the soup hot with cheese",
    "eat the soup with a piece of bread",
    "wash the pot and the knife afterwards",
]
COURT = [
    "the judge opened the trial on monday",
    "the lawyer told the court that his client was innocent",
    "a witness had seen the accused near the bank",
    "the police found the money in his house",
    "the jury did not believe the witness",
    "the court heard the second witness in the afternoon",
    "the lawyer asked the judge for more time",
    "the judge said that the law was clear",
    "the jury found the accused guilty of theft",
    "the judge sent him to prison for two years",
]


def test_the_carried_model_tells_what_goes_on(edge_bert: Served) -> None:
    made = follower(edge_bert)
    shares = made.shares([("Turn on the lights.", "And dim them, please."), (COURT[0], KITCHEN[3])])
    assert shares[0] > 0.5 > shares[1]
    singles = [float(made.shares([pair])[0]) for pair in (("a b", "c"), (COURT[0], COURT[1]))]
    np.testing.assert_allclose(made.shares([("a b", "c"), (COURT[0], COURT[1])]), singles, atol=0.03)


def test_each_line_is_held_against_the_one_before_it(edge_bert: Served) -> None:
    task = make_task(parse_uri("follows:m"), lambda _: edge_bert, Path())
    assert isinstance(task, Follower)
    assert list(task(Text(COURT[0], 0.0, 0.0))) == []
    (found,) = task(Text(KITCHEN[3], 0.0, 0.0))
    assert isinstance(found, Finding) and isinstance(found.what, Scores)
    assert found.what.label == "apart" and sum(found.what.scores.values()) == pytest.approx(1)
    with pytest.raises(InputError, match="nothing to understand"):
        list(task(Text("\u200b", 0.0, 0.0)))


def test_a_network_with_two_scores_of_its_own_and_inputs_of_other_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second text's words count against the first one's: "river" follows, all else does not."""
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    table = np.random.default_rng(0).normal((-1, 1), 0.1, (len(WORDS), 2)).astype(np.float32)
    table[: WORDS.index("[MASK]") + 1] = 0
    table[WORDS.index("river")] = (9, -9)
    table *= np.float32(0.05)
    nodes = [
        helper.make_node("Gather", ["table", "word_ids"], ["looked"]),
        helper.make_node("Cast", ["segment_ids"], ["second"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["second", "last"], ["wide"]),
        helper.make_node("Mul", ["looked", "wide"], ["of_second"]),
        helper.make_node("ReduceSum", ["of_second", "middle"], ["seq_relationship"], keepdims=0),
    ]
    ids: Any = (TensorProto.INT32, ["B", "L"])
    parts: dict[str, Any] = {"table": table, "last": np.array([2], np.int64), "middle": np.array([1], np.int64)}
    outputs: Any = {"seq_relationship": (TensorProto.FLOAT, ["B", 2])}
    (tmp_path / "m").mkdir()
    vocabulary(tmp_path / "m")
    path = write_onnx(tmp_path / "m" / "net.onnx", nodes, {"segment_ids": ids, "word_ids": ids}, outputs, parts)
    made = follower(Models(threads=1, once=True).serve(str(path)))
    shares = made.shares([("river", "music"), ("music loud", "the river"), ("music " * 700, "river " * 700)])
    assert [bool(share > 0.5) for share in shares] == [False, True, True]


def told_by(task: Task, samples: list[Text]) -> list[Finding]:
    """What a pipeline of this task tells of some texts, to their end."""
    found: list[Finding] = []
    run(samples, [task], reporter("every"), found.append, Stats())  # type: ignore[arg-type]
    return found


def test_a_stream_is_cut_where_another_topic_begins(edge_bert: Served) -> None:
    task = make_task(parse_uri("topics:m?below=0.6"), lambda _: edge_bert, Path())
    assert isinstance(task, Topics)
    lines = [*KITCHEN, *COURT, *KITCHEN]
    found = told_by(task, [Text(line, float(n), 0.0, mark=n) for n, line in enumerate(lines)])
    topics = [one.what for one in found]
    assert all(isinstance(one, Topic) for one in topics)
    assert [(one.first, one.lines) for one in topics if isinstance(one, Topic)] == [
        (KITCHEN[0], 10),
        (COURT[0], 10),
        (KITCHEN[0], 10),
    ]
    assert isinstance(topics[1], Topic) and {"judge", "court", "witness"} & set(topics[1].words)
    assert [one.of.text for one in found] == [KITCHEN[-1], COURT[-1], KITCHEN[-1]]
    # the place to go on at lies behind lines that were read since
    assert all(one.of.mark is None for one in found)
    event = to_event(found[1], "p")
    assert isinstance(event, TopicEvent) and event.since == "1970-01-01T00:00:10.000Z" and event.last == COURT[-1]


def test_of_a_topic_without_end_little_is_kept(edge_bert: Served) -> None:
    task = make_task(parse_uri("topics:m?below=-1"), lambda _: edge_bert, Path())
    assert isinstance(task, Topics)
    for n in range(400):
        assert list(task(Text(SENTENCES[n % len(SENTENCES)], 0.0, 0.0))) == []
    assert len(task._lines) < 60 and len(task._alike) == len(task._lines)
    (last,) = task.ended()
    assert isinstance(last.what, Topic) and last.what.lines == 400 and last.what.first == SENTENCES[0]
    assert list(task.ended()) == []
