"""Tokenizers that are not BERT's: made by the package itself, and what it gives is the truth."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from edge_agent.errors import ManifestError, RefusedError
from edge_agent.events.understood import Fill
from edge_agent.samples.everyday import SENTENCES
from edge_agent.serving.models import Models
from edge_agent.tasks import make_task
from edge_agent.tasks.text import vocabulary
from edge_agent.tasks.text.reader import made
from edge_agent.tasks.text.subwords import Subwords
from edge_agent.types import Finding, Spans, Text
from edge_agent.uri import parse_uri
from tests.nets import write_onnx

tokenizers = pytest.importorskip("tokenizers", reason="the extra [tokenizers] is not installed")
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
TEXTS = ["turn the light on", "Hello, World! 3.5 km", "東京 é 🚲 naïve", "  two  spaces\tand a tab ", "</s> <mask> <s>"]


def roberta(folder: Path) -> Any:
    """Byte pairs, as RoBERTa has them."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([*SENTENCES] * 3 + [" turn the light on the river"] * 20, trainer)
    made.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return saved(made, folder)


def xlmr(folder: Path) -> Any:
    """Unigrams, as XLM-R has them."""
    made = tokenizers.Tokenizer(tokenizers.models.Unigram())
    made.normalizer = tokenizers.normalizers.NFKC()
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=300, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator([*SENTENCES] * 3 + ["turn the light on the river"] * 20, trainer)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return saved(made, folder)


def saved(made: Any, folder: Path) -> Any:
    folder.mkdir(exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    return made


@pytest.fixture(params=[roberta, xlmr])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Subwords]:
    theirs = request.param(tmp_path)
    ours = vocabulary.from_json(tmp_path / "tokenizer.json")
    assert isinstance(ours, Subwords)
    return theirs, ours


def test_pieces_are_those_of_the_package_with_their_places(both: tuple[Any, Subwords]) -> None:
    theirs, ours = both
    for text in TEXTS[:2]:
        assert ours.encode(text, 512) == theirs.encode(text).ids
        assert ours.encode(text, 6) == [*theirs.encode(text).ids[:5], 2]
    for text in TEXTS:
        for _, start, end in ours.pieces(text, 512):
            assert 0 <= start <= end <= len(text) and not text[start:end][:1].isspace()
        covered = {at for _, start, end in ours.pieces(text, 512) for at in range(start, end)}
        assert covered == {at for at, char in enumerate(text) if not char.isspace()}
    # marks in a text are plain text, so that none can pretend to be two
    assert not {0, 1, 2, 4} & {piece for piece, _, _ in ours.pieces(TEXTS[4], 512)}
    assert len(ours.pieces("word " * 100_000, 50)) == 50


def test_two_texts_stand_as_the_package_puts_them(both: tuple[Any, Subwords], tmp_path: Path) -> None:
    theirs, ours = both
    assert ours.seps == 2
    path = net(tmp_path, len(ours.vocab), {})
    reader = made(Models(threads=1, once=True).open(str(path)), None)
    one, other = "turn the light on", "Hello, World!"
    row, first = reader.pair(reader.ids(one), reader.ids(other))
    assert row == theirs.encode(one, other).ids and row[first - 1] == 2


def net(folder: Path, words: int, of: dict[int, int], tags: int = 0) -> Path:
    """A masked language model that says of each mask what stands in the text most often, or a tagger of pieces."""
    dice = np.random.default_rng(0)
    wide = tags or words
    table = dice.normal(0, 0.1, (words, wide)).astype(np.float32)
    if tags:
        table[:, 0] += 4
        for piece, tag in of.items():
            table[piece] += 8 * np.eye(wide, dtype=np.float32)[tag] - 4 * np.eye(wide, dtype=np.float32)[0]
    else:
        table += 20 * np.eye(words, dtype=np.float32)
        table[:5] = 0
    extra = np.zeros((words, wide + 3), np.float32)
    extra[:, :wide] = table
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "w"], ["logits" if tags else "each"]),
        helper.make_node("Cast", ["attention_mask"], ["unused"], to=TensorProto.FLOAT),
    ]
    if not tags:
        nodes += [
            helper.make_node("ReduceMean", ["each"], ["mean"], axes=[1], keepdims=1),
            helper.make_node("Mul", ["each", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "mean"], ["logits"]),
        ]
    inputs: Any = {name: (TensorProto.INT64, ["B", "L"]) for name in ("input_ids", "attention_mask")}
    parts: dict[str, Any] = {"table": extra, "w": np.eye(wide + 3, wide, dtype=np.float32), "zero": np.float32(0)}
    outputs: Any = {"logits": (TensorProto.FLOAT, ["B", "L", wide])}
    return write_onnx(folder / "net.onnx", nodes, inputs, outputs, {k: np.asarray(v) for k, v in parts.items()})


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))


def test_a_masked_language_model_with_such_a_tokenizer_serves(both: tuple[Any, Subwords], tmp_path: Path) -> None:
    _, ours = both
    model = Models(threads=1, once=True).serve(str(net(tmp_path, len(ours.vocab), {})))
    task = make_task(parse_uri("fill:m"), lambda _: model, tmp_path)
    (found,) = task(Text("the light the light the light on the <mask>", 0.0, 0.0))
    assert isinstance(found, Finding) and isinstance(found.what, Fill)
    assert {"the", "light"} & {one.word for one in found.what.places[0].words[:3]}


def test_a_tagger_with_such_a_tokenizer_marks_characters(both: tuple[Any, Subwords], tmp_path: Path) -> None:
    _, ours = both
    pieces = {piece: 1 for piece, start, end in ours.pieces("on the river", 9) if "on the river"[start:end] in "river"}
    (tmp_path / "labels.txt").write_text("O\nB-PLACE\nB-THING\n")
    model = Models(threads=1, once=True).serve(str(net(tmp_path, len(ours.vocab), pieces, 3)))
    assert model.manifest.task == "tag"
    text = "Turn the light on the river, please"
    (found,) = make_task(parse_uri("tag:m"), lambda _: model, tmp_path)(Text(text, 0.0, 0.0))
    assert isinstance(found, Finding) and isinstance(found.what, Spans)
    spans = [text[a:b] for a, b in zip(found.what.start, found.what.end, strict=True)]
    assert "river" in spans and all(text.index(one) >= 0 for one in spans)


def test_without_the_package_it_is_said_what_to_type(
    both: tuple[Any, Subwords], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ManifestError, match=r'needs the package tokenizers: pip install "edge-agent-runtime\[tokeniz'):
        vocabulary.from_json(tmp_path / "tokenizer.json")


def test_a_file_that_the_package_refuses_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text('{"model": {"type": "BPE", "vocab": 5}}')
    with pytest.raises((ManifestError, RefusedError), match="cannot read it") as error:
        vocabulary.from_json(path)
    assert "\n" not in str(error.value)
