"""What stands beside a text network, and which file holds where two differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_agent.backends import longest, open_net
from edge_agent.errors import RefusedError
from edge_agent.gate.worth import looker
from edge_agent.inspect.inspect import inspect
from edge_agent.inspect.tokens import Tokens, tokens
from edge_agent.manifest import File, Manifest, Rules, Served, TextInput
from edge_agent.registry import catalogue
from edge_agent.registry.add import add
from edge_agent.tasks.proofs import Recorder
from edge_agent.tasks.text.proof import prove_encoder
from edge_agent.types import ModelRef
from tests.registry import here
from tests.tasks.test_wordpiece import reference
from tests.tasks.text_models import WORDS, vocabulary


def beside(folder: Path, part: str = "vocab.txt", **files: Any) -> Tokens:
    for old in folder.iterdir():
        old.unlink()
    if part == "vocab.txt":
        vocabulary(folder)
    elif part:
        reference(True, None).save(str(folder / part))
    for name, table in files.items():
        (folder / f"{name}.json").write_text(table if isinstance(table, str) else json.dumps(table))
    return tokens(folder / "net.onnx")


BERT = {"tokenizer_class": "BertTokenizer"}


@pytest.mark.parametrize(
    ("part", "files", "rules"),
    [
        ("vocab.txt", {}, None),
        ("vocab.txt", {"tokenizer_config": {"strip_accents": False}}, Rules(strip_accents=False)),
        ("vocab.txt", {"tokenizer_config": {"tokenize_chinese_chars": False}}, Rules(space_cjk=False)),
        ("tokenizer.json", {}, None),
        # a BERT class sets all three anew, whatever tokenizer.json says; its defaults too
        ("tokenizer.json", {"tokenizer_config": BERT}, Rules(lowercase=True, strip_accents=True, space_cjk=True)),
        (
            "tokenizer.json",
            {"tokenizer_config": {**BERT, "do_lower_case": False, "strip_accents": None}},
            Rules(lowercase=False, strip_accents=False, space_cjk=True),
        ),
        # the plain class takes tokenizer.json as it is
        (
            "tokenizer.json",
            {"tokenizer_config": {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}},
            None,
        ),
        ("tokenizer.json", {"tokenizer_config": {"do_lower_case": False}}, Rules(lowercase=False)),
        ("tokenizer.json", {"sentence_bert_config": {"do_lower_case": True}}, Rules(first_lower=True)),
        (
            "vocab.txt",
            {"special_tokens_map": {"cls_token": {"content": "<s>"}, "sep_token": "[SEP]"}},
            Rules(cls="<s>"),
        ),
    ],
)
def test_settings(tmp_path: Path, part: str, files: dict[str, Any], rules: Rules | None) -> None:
    found = beside(tmp_path, part, **files)
    assert (found.refusal, found.rules) == ("", rules)


def test_added_tokens_beside_a_vocabulary(tmp_path: Path) -> None:
    row = {"content": "<num>", "lstrip": True, "normalized": False, "special": True}
    mark = {"content": "[CLS]", "special": True}
    config = {"added_tokens_decoder": {"2": mark, str(len(WORDS)): row}}
    found = beside(tmp_path, tokenizer_config=config, added_tokens={"<num>": len(WORDS), "<at>": len(WORDS) + 1})
    assert found.rules is not None
    told = {token.content: token for token in found.rules.added}
    assert set(told) == {"<num>", "<at>"}
    assert told["<num>"].lstrip and not told["<num>"].normalized and told["<at>"].normalized


@pytest.mark.parametrize(
    ("files", "length"),
    [
        ({}, None),
        ({"tokenizer_config": {"model_max_length": 64}}, 64),
        ({"tokenizer_config": {"model_max_length": 1e30}, "config": {"max_position_embeddings": 96}}, 96),
        ({"tokenizer_config": {"model_max_length": 512}, "config": {"max_position_embeddings": 128}}, 128),
        ({"tokenizer_config": {"model_max_length": 512}, "sentence_bert_config": {"max_seq_length": 48}}, 48),
        ({"tokenizer_config": {"model_max_length": 80}, "sentence_bert_config": {"max_seq_length": None}}, 80),
    ],
)
def test_the_longest_text(tmp_path: Path, files: dict[str, Any], length: int | None) -> None:
    assert beside(tmp_path, **files).length == length


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"tokenizer_config": {"do_basic_tokenize": False}}, "split at spaces alone"),
        ({"tokenizer_config": {"never_split": ["pump"]}}, "never_split"),
        ({"tokenizer_config": {"truncation_side": "left"}}, "truncation_side"),
        (
            {"tokenizer_config": {"tokenizer_class": "BertJapaneseTokenizer"}},
            "tokenizer_class is BertJapaneseTokenizer",
        ),
        ({"config_sentence_transformers": {"default_prompt_name": "query"}}, 'the prompt "query"'),
        ({"tokenizer_config": "{"}, "tokenizer_config.json beside it is no JSON"),
        ({"added_tokens": [1]}, "added_tokens.json beside it is no table"),
        ({"tokenizer_config": {"added_tokens_decoder": {"x": {"content": "a"}}}}, "settings cannot be read"),
        ({"tokenizer_config": {"added_tokens_decoder": [1]}}, "settings cannot be read"),
        ({"tokenizer_config": {"never_split": 5}}, "settings cannot be read"),
    ],
)
def test_what_is_not_served_is_refused(tmp_path: Path, files: dict[str, Any], says: str) -> None:
    assert says in beside(tmp_path, **files).refusal


def test_the_pieces_of_another_tokenizer_are_named(tmp_path: Path) -> None:
    (tmp_path / "merges.txt").write_text("")
    assert "merges.txt beside it is of another tokenizer" in tokens(tmp_path / "net.onnx").refusal


def positions(path: Path, rows: int, table: int = len(WORDS)) -> Path:
    """An encoder of any length by its axes whose table of positions has so many rows."""
    rng = np.random.default_rng(1)
    words, where = rng.standard_normal((table, 24)), 1e-3 * rng.standard_normal((rows, 24))
    constants = {"words": words.astype(np.float32), "where": where.astype(np.float32)}
    numbers = {name: np.array(value, np.int64) for name, value in (("zero", 0), ("one", 1))}
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["looked"]),
        helper.make_node("Shape", ["input_ids"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["length"]),
        helper.make_node("Range", ["zero", "length", "one"], ["range"]),
        helper.make_node("Gather", ["where", "range"], ["placed"]),
        helper.make_node("Add", ["looked", "placed"], ["last_hidden_state"]),
    ]
    graph = helper.make_graph(
        nodes,
        "positions",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "l"])],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["b", "l", 24])],
        [numpy_helper.from_array(value, name) for name, value in {**constants, **numbers}.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.mark.parametrize("rows", [3, 97, 128, 511, 512, 600])
def test_the_longest_input_is_tried(tmp_path: Path, rows: int) -> None:
    path = positions(tmp_path / "net.onnx", rows)
    net = open_net(path, "onnx")
    assert longest(net, 512) == min(rows, 512)
    vocabulary(tmp_path)
    seen = inspect(path, net, looker())
    assert seen.text is not None and seen.text.max_length == min(rows, 512)


def test_a_tokenizer_with_more_pieces_than_the_network_is_refused(tmp_path: Path) -> None:
    path = positions(tmp_path / "net.onnx", 64, table=len(WORDS) - 1)
    vocabulary(tmp_path)
    assert f"does not take word piece {len(WORDS) - 1}" in inspect(path, open_net(path, "onnx"), looker()).refusal


def test_settings_reach_the_manifest_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    folder = tmp_path / "net"
    folder.mkdir()
    positions(folder / "net.onnx", 64, table=len(WORDS) + 1)
    vocabulary(folder)
    row = {"content": '<"num">', "normalized": False}
    config = {"strip_accents": False, "added_tokens_decoder": {str(len(WORDS)): row}, "model_max_length": 40}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    add(folder / "net.onnx", "mine", here.read)
    text = catalogue.locate("mine").manifest.text
    assert text is not None and text.rules is not None and text.max_length == 40
    assert text.rules.strip_accents is False and text.rules.added[0].content == '<"num">'


def test_a_manifest_that_says_more_than_the_network_takes_is_refused(tmp_path: Path) -> None:
    path = positions(tmp_path / "net.onnx", 64)
    rows = [File("net.onnx", "onnx", "0" * 64, 1)]
    text = TextInput(vocab="vocab.txt", max_length=128)
    made = Manifest("toy", "1", "encode", "bert", "", "", rows, text=text)
    words = {"vocab": vocabulary(tmp_path)}
    model = Served(made, ModelRef("toy", "1", "0" * 64), open_net(path, "onnx"), words, None, "")
    with pytest.raises(
        RefusedError, match=r"it takes 64 word pieces of a text, and max_length under \[text\] says 128"
    ):
        prove_encoder(model, Recorder())
