"""Questions: passages by words and meaning, spans by a model that finds them, and what was lately captured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from edge_agent.errors import ConfigError, InputError, ManifestError
from edge_agent.events import AnswerEvent
from edge_agent.events.understood import Answer
from edge_agent.manifest import Served
from edge_agent.serving.models import Models
from edge_agent.tasks import make_task
from edge_agent.tasks.text import captured
from edge_agent.tasks.text.passages import passages
from edge_agent.tasks.text.reader import LONGEST, sentences
from edge_agent.types import Finding, Text
from edge_agent.uri import parse_uri
from edge_agent.walk.event import to_event
from tests.nets import write_onnx
from tests.tasks.text_models import WORDS, vocabulary

MANUAL = """The pump starts when the water is higher than two metres. Its fuse is in the grey box by the door.
Oil is changed every six months. Ask Maria for the key of the cellar.

The heating runs from October to April. In summer only the boiler for hot water is on.
"""


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    yield
    captured.keep(0)


def ask(model: Served, question: str, options: str = "") -> Answer:
    made = make_task(parse_uri(f"answer:m{options}"), lambda _: model, Path())
    (found,) = made(Text(question, 0.0, 0.0))
    assert isinstance(found, Finding) and isinstance(found.what, Answer)
    assert isinstance(to_event(found, "p"), AnswerEvent)
    return found.what


def test_passages_of_a_folder_are_the_answer_of_an_encoder(edge_bert: Served, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    (docs / "deep").mkdir(parents=True)
    (docs / "manual.md").write_text(MANUAL)
    (docs / "deep" / "cake.txt").write_text("Two eggs, a cup of flour and a pinch of salt make a cake.")
    (docs / "picture.png").write_bytes(b"\x89PNG")
    found = ask(edge_bert, "Where is the fuse of the pump?", f"?context={docs}&top=2")
    assert (found.answer, found.extracted, found.passages[0].source) == (None, False, "manual.md")
    assert "grey box" in found.passages[0].text and len(found.passages) == 2
    assert found.passages[0].score >= found.passages[1].score
    assert ask(edge_bert, "how many eggs", f"?context={docs}").passages[0].source == "deep/cake.txt"
    assert "Maria" in ask(edge_bert, "who has a key", f"?context={docs / 'manual.md'}").passages[0].text


def test_a_text_may_bring_its_context(edge_bert: Served) -> None:
    found = ask(edge_bert, f"Who has the key? {MANUAL * 20}")
    assert "Maria" in found.passages[0].text
    with pytest.raises(InputError, match="no letter in the question"):
        ask(edge_bert, "?! …")


def test_what_was_captured_is_asked_while_it_is_remembered(edge_bert: Served) -> None:
    assert ask(edge_bert, "who rang?", "?context=captured").passages == ()
    captured.keep(2)
    for line in ("the postman rang at ten", "it began to rain", "the cat came home"):
        captured.note(line, "hall")
    found = ask(edge_bert, "did it rain?", "?context=captured")
    assert (found.passages[0].text, found.passages[0].source) == ("it began to rain", "hall")
    assert "postman" not in str(found)


def test_a_place_without_text_is_named(edge_bert: Served, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.txt").write_text(" \n . \n")
    for place, said in (
        (tmp_path / "nowhere", "cannot be read"),
        (tmp_path / "empty", "no text in it; files that end in .txt"),
        (tmp_path / "none.txt", "no sentence in it"),
        (Path("/dev/zero"), "no regular file"),
    ):
        with pytest.raises(ConfigError, match=said):
            ask(edge_bert, "who?", f"?context={place}")
    with pytest.raises(ConfigError, match="finds them itself"):
        ask(edge_bert, "who?", "?passages=encoder")


def qa(folder: Path, single: bool, length: int | str = "L") -> Path:
    """An answer begins with "river" and ends with "book", 12 together; [CLS] is worth 8."""
    folder.mkdir()
    vocabulary(folder)
    table = np.random.default_rng(0).normal(0, 0.1, (len(WORDS), 3)).astype(np.float32)
    table[WORDS.index("[CLS]")] = (4, 4, 0)
    table[WORDS.index("river"), 0] = table[WORDS.index("book"), 1] = 6
    names = ["input_ids", "attention_mask", "token_type_ids"]
    nodes = [helper.make_node("Cast", [name], [f"u {name}"], to=TensorProto.FLOAT) for name in names[1:]]
    nodes.append(helper.make_node("Gather", ["table", "input_ids"], ["looked"]))
    nodes.append(helper.make_node("MatMul", ["looked", "two"], ["both" if single else "split"]))
    outputs: dict[str, tuple[int, list[int | str]]] = {"both": (TensorProto.FLOAT, ["B", length, 2])}
    parts: dict[str, Any] = {"table": table, "two": np.eye(3, 2, dtype=np.float32)}
    if not single:
        nodes += [helper.make_node("Gather", ["split", key], [f"{key}_logits"], axis=2) for key in ("end", "start")]
        outputs = {f"{key}_logits": (TensorProto.FLOAT, ["B", length]) for key in ("end", "start")}
        parts |= {"start": np.array(0, np.int64), "end": np.array(1, np.int64)}
    inputs = {name: (TensorProto.INT64, ["B", length]) for name in names}
    return write_onnx(folder / "net.onnx", nodes, inputs, outputs, parts)


@pytest.mark.parametrize(("single", "length"), [(True, "L"), (False, "L"), (False, 24)])
def test_a_model_that_finds_answers_marks_the_words(tmp_path: Path, single: bool, length: int | str) -> None:
    model = Models(threads=1, once=True).serve(str(qa(tmp_path / "m", single, length)))
    assert model.manifest.task == "answer" and model.manifest.family == "bert-qa"
    place = tmp_path / "text.txt"
    place.write_text("It is dark. " * 30 + "The River of the BOOK is cold. " + "A song is loud. " * 30)
    found = ask(model, "what is the cold?", f"?context={place}&passages=words&top=1")
    assert found.extracted and found.answer == "River of the BOOK" and found.score > 0.95
    place.write_text("Rain is in the book and the river is dark.")
    none = ask(model, "is it dark?", f"?context={place}&passages=words")
    assert none.answer is None and none.score < 0.5 and none.passages, "the end stands before the beginning"


def test_words_and_vectors_look_together(edge_bert: Served, tmp_path: Path) -> None:
    found = Models(threads=1, once=True).serve(str(qa(tmp_path / "m", True)))
    (tmp_path / "text.txt").write_text("river of the book. Snow and storm.")
    made = make_task(
        parse_uri(f"answer:m?context={tmp_path / 'text.txt'}"),
        lambda name: edge_bert if name == "encoder" else found,
        Path(),
    )
    (told,) = made(Text("what is with the river?", 0.0, 0.0))
    assert isinstance(told, Finding) and isinstance(told.what, Answer) and told.what.answer == "river of the book"
    with pytest.raises(ManifestError, match="no text encoder"):
        make_task(parse_uri(f"answer:m?context={tmp_path / 'text.txt'}"), lambda _: found, Path())


def test_sentences_and_passages() -> None:
    assert sentences('He said "no." Then he went! 3.5 km on.\nA new line 東京。雨。') == [
        'He said "no.',
        "Then he went!",
        "3.5 km on.",
        "A new line 東京。",
        "雨。",
    ]
    long = sentences("word " * 1000)
    assert " ".join(long) == ("word " * 1000).strip() and max(map(len, long)) <= LONGEST
    assert sentences("x" * 1000) == ["x" * LONGEST, "x" * LONGEST, "x" * 200]
    assert sentences(" . ! ") == [] == passages("")
    assert [len(one) < 300 for one in passages("It is so. " * 100)] == [True] * 4
