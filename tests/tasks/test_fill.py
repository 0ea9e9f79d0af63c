"""Masked words, and the repair of misread ones: on the carried model, and on graphs that are made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from edge_agent.backends import open_net
from edge_agent.errors import ConfigError, InputError, ManifestError
from edge_agent.events import FillEvent, TopicEvent
from edge_agent.events.understood import Fill, Topic
from edge_agent.manifest import Served
from edge_agent.serving.models import Models
from edge_agent.tasks import make_task
from edge_agent.tasks.text.follows import follower
from edge_agent.tasks.text.spelling import Speller, distance
from edge_agent.types import Finding, Heard, Text
from edge_agent.uri import parse_uri
from edge_agent.walk.event import to_event
from edge_agent.walk.privacy import Guard
from tests.conftest import ROOT
from tests.nets import write_onnx
from tests.tasks.text_models import WORDS, bert, vocabulary


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))


def ask(model: Served | str, item: Text | str, options: str = "") -> Fill:
    served = Models(threads=1, once=True).serve(model) if isinstance(model, str) else model
    made = make_task(parse_uri(f"fill:m{options}"), lambda _: served, Path())
    (found,) = made(Text(item, 0.0, 0.0) if isinstance(item, str) else item)
    assert isinstance(found, Finding) and isinstance(found.what, Fill)
    assert isinstance(to_event(found, "p"), FillEvent)
    return found.what


def test_the_carried_model_fills_in_what_fits(edge_bert: Served) -> None:
    text = "Please turn on the [MASK] in the [MASK]!"
    found = ask(edge_bert, text, "?top=10")
    assert [(text[p.start : p.end], len(p.words)) for p in found.places] == [("[MASK]", 10)] * 2
    assert {"light", "lights"} & {one.word for one in found.places[0].words}
    assert found.filled.startswith("Please turn on the ") and "MASK" not in found.filled
    assert all(a.score >= b.score for p in found.places for a, b in zip(p.words, p.words[1:], strict=False))


def test_a_mask_in_a_long_text_sees_what_is_around_it(edge_bert: Served) -> None:
    said = "turn on the kitchen light now . "
    found = ask(edge_bert, f"{said * 40}turn on the kitchen [MASK] now . {said * 40}turn on the [MASK] light now .")
    told = [[one.word for one in place.words] for place in found.places]
    assert len(told) == 2 and "light" in told[0] and "kitchen" in told[1]


def test_what_there_is_to_fill_has_to_be_said(edge_bert: Served) -> None:
    with pytest.raises(InputError, match=r"no \[MASK\] in the text"):
        ask(edge_bert, "turn the light on")
    with pytest.raises(InputError, match="65 masks in one text; at most 64"):
        ask(edge_bert, "[MASK] " * 65)
    with pytest.raises(ConfigError, match="top=0: give a number from 1 to 100"):
        ask(edge_bert, "[MASK]", "?top=0")


def test_words_of_a_low_score_are_mended_and_both_texts_told(edge_bert: Served) -> None:
    text = "Pleese turn on the lights in the kitchan"
    got = Heard("whisper", 0.4, 2.0)
    found = ask(edge_bert, Text(text, 0.0, 0.0, got=got), "?repair=0.6")
    assert found.repaired and found.filled == "Please turn on the lights in the kitchen"
    assert [text[p.start : p.end] for p in found.places] == ["Pleese", "kitchan"]
    sure = ask(edge_bert, Text(text, 0.0, 0.0, got=Heard("whisper", 0.9, 2.0)), "?repair=0.6")
    assert (sure.filled, sure.places) == (text, ())


def test_a_pipeline_that_keeps_its_words_says_none_of_them(edge_bert: Served) -> None:
    model = edge_bert
    made = make_task(parse_uri("fill:m?top=2"), lambda _: model, Path())
    (found,) = made(Text("turn the [MASK] on", 0.0, 0.0))
    event = Guard(words=False).event(to_event(found, "p"), found)
    assert isinstance(event, FillEvent) and (event.text, event.filled) == ("", "")
    assert [(one.word, one.score > 0) for one in event.places[0].words] == [("", True)] * 2
    told = Finding(Text("last", 0.0, 0.0), Topic(3, 0.0, "first", ("word",)), found.model)  # type: ignore[union-attr]
    topic = Guard(words=False).event(to_event(told, "p"), told)
    assert isinstance(topic, TopicEvent) and (topic.first, topic.last, topic.keywords) == ("", "", ())


def test_an_edit_is_counted_as_damerau_does() -> None:
    pairs = {("light", "lihgt"): 1, ("light", "lights"): 1, ("light", "might"): 1, ("light", "ligt"): 1, ("a", "bc"): 2}
    assert {pair: distance(*pair) for pair in pairs} == pairs
    speller = Speller({1: "kitchen", 2: "light", 3: "sun"})
    assert speller.near("kitchan") == [(1, 1)] and speller.near("ligth") == [(2, 1)] and speller.near("river") == []
    assert speller.knows("Lights") and not speller.knows("kitchan")


def mlm(folder: Path, names: list[str], dtype: int = TensorProto.INT64, length: Any = "L") -> Path:
    """In each place the words that stand in the text most often, and behind them "lamp"."""
    folder.mkdir(exist_ok=True)
    vocabulary(folder)
    table = 20 * np.eye(len(WORDS), dtype=np.float32)
    table[: WORDS.index("[MASK]") + 1] = 0
    table[:, WORDS.index("lamp")] += 0.1
    nodes = [
        helper.make_node("Gather", ["table", names[0]], ["looked"]),
        helper.make_node("ReduceMean", ["looked"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["looked", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "mean"], ["logits"]),
        *(helper.make_node("Cast", [name], [f"unused {name}"], to=TensorProto.FLOAT) for name in names[1:]),
    ]
    inputs = {name: (dtype, ["B", length]) for name in names[::-1]}
    outputs = {"logits": (TensorProto.FLOAT, ["B", length, len(WORDS)])}
    parts = {"table": table, "zero": np.float32(0)}
    return write_onnx(folder / "net.onnx", nodes, inputs, outputs, {k: np.asarray(v) for k, v in parts.items()})


@pytest.mark.parametrize(
    "given",
    [
        {"names": ["input_ids", "attention_mask", "token_type_ids"]},
        {"names": ["ids", "segment"], "dtype": TensorProto.INT32},
        {"names": ["input_word_ids"], "length": 16},
    ],
    ids=str,
)
def test_any_masked_language_model_is_read_admitted_and_served(tmp_path: Path, given: dict[str, Any]) -> None:
    path = mlm(tmp_path / "m", **given)
    found = ask(str(path), "river river river storm storm and [MASK]")
    assert [one.word for one in found.places[0].words[:2]] == ["river", "storm"]
    assert found.filled == "river river river storm storm and river"
    many = ask(str(path), "storm " * 40 + "[MASK]")
    assert many.places[0].words[0].word == "storm"


def test_the_heads_fit_the_encoder_as_tflite_too(edge_bert: Served) -> None:
    """One text at a time, of any length: TFLite's form of the same encoder."""
    folder = ROOT / "models" / "edge-bert"
    heads = {"mlm": "mlm.int8.onnx", "nsp": "nsp.onnx"}
    net = open_net(folder / "encoder.int8.tflite", "tflite", 1)
    model = msgspec.structs.replace(edge_bert, net=net, head=lambda role: open_net(folder / heads[role], "onnx", 1))
    text = "please turn on the [MASK] in the kitchen"
    ours, theirs = (ask(one, text, "?top=10").places[0].words for one in (model, edge_bert))
    assert len({one.word for one in ours} & {one.word for one in theirs}) >= 6
    pairs = [("Turn on the lights.", "And dim them, please."), ("The judge spoke.", "Fry the onions for a minute.")]
    np.testing.assert_allclose(follower(model).shares(pairs), follower(edge_bert).shares(pairs), atol=0.1)


def test_a_model_without_such_a_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no model that fills in masked words .*no head for it lies beside it"):
        ask(bert(tmp_path), "[MASK]")
