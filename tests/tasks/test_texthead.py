"""Text networks with a head of their own: read, proved, gated and served, on graphs that are made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from edge_agent.cli import main
from edge_agent.errors import ConfigError, InputError, ManifestError, ModelError, RefusedError
from edge_agent.events import SpansEvent
from edge_agent.gate.read import read
from edge_agent.registry import catalogue
from edge_agent.serving.models import Models, try_all
from edge_agent.tasks import make_task
from edge_agent.tasks.text.texthead import joined, text_head
from edge_agent.types import Finding, Scores, Spans, Text
from edge_agent.uri import parse_uri
from edge_agent.walk.event import to_event
from tests.conftest import lines_of
from tests.gate.test_agree import row
from tests.nets import write_onnx
from tests.tasks.text_models import WORDS, vocabulary

TAGS = ["O", "B-PLACE", "I-PLACE", "B-THING"]
KINDS = ["calm", "storm", "song"]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def scores(of: dict[str, int], count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """(words, count) logits: each named word has its class, the others the first, and nothing is quite the same."""
    table = np.random.default_rng(seed).normal(0, 0.1, (len(WORDS), count)).astype(np.float32)
    table[:, 0] += 4
    for word, label in of.items():
        table[WORDS.index(word)] += 6 * np.eye(count, dtype=np.float32)[label] - 4 * np.eye(count, dtype=np.float32)[0]
    return table


PLACES = {"river": 1, "book": 2, "un": 3, "##able": 1, "e": 2, "東": 1, "京": 2, "i": 3, "a": 0, "o": 1}
MOODS = {"rain": 1, "storm": 1, "play": 2, "music": 2}


def parts(table: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Hidden states that are a little wider than the scores, and what makes scores of them."""
    return {"table": np.pad(table, ((0, 0), (0, 3))), "w": np.eye(table.shape[1] + 3, table.shape[1], dtype=np.float32)}


def tagger(
    folder: Path, table: np.ndarray[Any, Any], name: str = "net.onnx", softmax: bool = False, length: Any = "L"
) -> Path:
    """Each word piece is looked up: its row is its scores."""
    folder.mkdir(exist_ok=True)
    vocabulary(folder)
    out = "logits" if not softmax else "raw"
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "w"], [out]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", [out], ["logits"], axis=-1))
    ends: list[Any] = [
        {"input_ids": (TensorProto.INT64, ["B", length])},
        {"logits": (TensorProto.FLOAT, ["B", length, table.shape[1]])},
    ]
    return write_onnx(folder / name, nodes, ends[0], ends[1], parts(table))


def labeller(folder: Path, table: np.ndarray[Any, Any], name: str = "net.onnx", last: str = "") -> Path:
    """The sum of the rows of a text's word pieces."""
    folder.mkdir(exist_ok=True)
    vocabulary(folder)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["hidden"]),
        helper.make_node("ReduceMean", ["hidden"], ["pooled"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["pooled", "w"], ["logits" if not last else "raw"]),
    ]
    if last:
        nodes.append(helper.make_node(last, ["raw"], ["logits"]))
    ends: list[Any] = [
        {"input_ids": (TensorProto.INT64, ["B", "L"])},
        {"logits": (TensorProto.FLOAT, ["B", table.shape[1]])},
    ]
    return write_onnx(folder / name, nodes, ends[0], ends[1], parts(table))


def named(folder: Path, labels: list[str]) -> None:
    (folder / "labels.txt").write_text("\n".join(labels) + "\n")


def ask(path: Path, task: str, text: str, options: str = "") -> Any:
    made = make_task(parse_uri(f"{task}:m{options}"), lambda _: Models(threads=1).serve(str(path)), path.parent)
    (finding,) = made(Text(text, 0.0, 0.0))
    assert isinstance(finding, Finding)
    return finding.what


def test_what_is_named_in_a_text_with_its_place(tmp_path: Path) -> None:
    path = tagger(tmp_path / "m", scores(PLACES, 4))
    named(path.parent, TAGS)
    text = "The River  book, unable: É 東京 it!"
    found = ask(path, "tag", text)
    assert isinstance(found, Spans)
    spans = [(text[a:b], label) for a, b, label in zip(found.start, found.end, found.label, strict=True)]
    # "unable" is two pieces and takes the tag of the first; É goes on with nothing that is open and begins anew
    assert spans == [("River  book", "PLACE"), ("unable", "THING"), ("É", "PLACE"), ("東京", "PLACE")]
    assert all(0.9 < score <= 1 for score in found.score.tolist())
    assert len(ask(path, "tag", "what will it do").label) == 0
    assert len(ask(path, "tag", text, "?score=1").label) == 0


@pytest.mark.parametrize("length", [10, 12, 32])
def test_a_long_text_is_tagged_to_its_end(tmp_path: Path, length: int) -> None:
    path = tagger(tmp_path / "m", scores(PLACES, 4), length=length)
    named(path.parent, TAGS)
    text = "hello the river is dark , unable " * 9 + "and a book"
    found = ask(path, "tag", text)
    places = [text[a:b] for a, b, kind in zip(found.start, found.end, found.label, strict=True) if kind == "PLACE"]
    assert places == ["river"] * 9 + ["book"]


def test_a_long_text_is_labelled_by_all_of_it_and_an_unreadable_one_not(tmp_path: Path) -> None:
    path = labeller(tmp_path / "m", scores(MOODS, 3))
    named(path.parent, KINDS)
    found = ask(path, "classify", "hello " * 700 + "rain storm " * 700)
    assert found.label == "storm" and 0.3 < found.scores["storm"] < 0.9
    found = ask(path, "classify", "включи свет")
    assert (found.label, found.score, found.scores["storm"]) == ("unknown", 1.0, 0.0)


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B-A I-A O I-A", [(0, 2, "A"), (3, 4, "A")]),
        ("B-A B-A I-B I-B", [(0, 1, "A"), (1, 2, "A"), (2, 4, "B")]),
        ("A A O B-x", [(0, 2, "A"), (3, 4, "x")]),
        ("B-A I-A E-A I-A S-A S-A", [(0, 3, "A"), (3, 4, "A"), (4, 5, "A"), (5, 6, "A")]),
        ("B-A L-A U-B O", [(0, 2, "A"), (2, 3, "B")]),
        ("O o O", []),
        ("B-geo-loc I-geo-loc", [(0, 2, "geo-loc")]),
    ],
)
def test_tags_are_joined_in_every_scheme(tags: str, spans: list[tuple[int, int, str]]) -> None:
    words = [(i, i + 1, tag, 0.5 + i / 100) for i, tag in enumerate(tags.split())]
    found = joined(words)
    assert [span[:3] for span in found] == spans
    for start, end, _, score in found:
        assert score == pytest.approx(np.mean([0.5 + i / 100 for i in range(start, end)]))


def test_the_label_of_a_text(tmp_path: Path) -> None:
    path = labeller(tmp_path / "m", scores(MOODS, 3))
    named(path.parent, KINDS)
    found = ask(path, "classify", "rain rain rain")
    assert isinstance(found, Scores) and found.label == "storm" and next(iter(found.scores)) == "storm"
    assert sum(found.scores.values()) == pytest.approx(1, abs=1e-5)
    assert ask(path, "classify", "play music").label == "song"
    with pytest.raises(InputError, match="empty text"):
        ask(path, "classify", " ")
    with pytest.raises(ConfigError, match="has labels of its own"):
        ask(path, "classify", "rain", "?labels=x.toml")
    with pytest.raises(ConfigError, match="is no tagger of text"):
        ask(path, "tag", "rain")


def test_probabilities_are_told_from_logits_and_a_fixed_length_is_padded(tmp_path: Path) -> None:
    table = scores(PLACES, 4)
    plain, ready = tagger(tmp_path / "a", table), tagger(tmp_path / "b", table, softmax=True, length=16)
    for path in (plain, ready):
        named(path.parent, TAGS)
    one, other = (text_head(Models(threads=1).serve(str(path))) for path in (plain, ready))
    assert (one.ready, other.ready, other.length) == (False, True, 16)
    ids = one.read("the river book")
    assert one.shares(ids) == pytest.approx(other.shares(ids), abs=1e-5)


def test_it_is_read_with_a_reason_for_each_conclusion(tmp_path: Path) -> None:
    path = tagger(tmp_path / "m", scores(PLACES, 4))
    (path.parent / "config.json").write_text(json.dumps({"id2label": dict(enumerate(TAGS))}))
    seen = read(path).seen
    assert (seen.task, seen.family, seen.labels, seen.refusal) == ("tag", "bert-tagger", TAGS, "")
    for words in ("family bert-tagger: ", "vocab: vocab.txt beside", "lowercase true", "id2label", "max_length 512"):
        assert any(words in reason for reason in seen.reasons), words
    assert catalogue.locate(str(path), read=lambda _: seen).manifest.text is not None


@pytest.mark.parametrize(
    ("made", "labels", "says"),
    [
        ("tagger", None, "nothing says which tag is which; put labels.txt beside it"),
        ("tagger", ["A", "B", "C", "D"], "no tag among A, B, C, D is O"),
        ("tagger", ["O", "A"], "there are 2 names in labels.txt beside the file; put labels.txt beside it"),
        ("two", None, "it may be a classifier or a next-sentence head, and nothing in the file says"),
        ("one", None, "one score a text has no classes"),
        ("sigmoid", KINDS, "ends in a Sigmoid, so several labels may hold at once"),
        ("wordless", KINDS, "no tokenizer.json or vocab.txt beside it; put it there"),
        ("placeholders", None, "nothing says which tag is which"),
    ],
)
def test_what_it_leaves_open_is_refused_with_what_to_do(
    tmp_path: Path, made: str, labels: list[str] | None, says: str
) -> None:
    folder = tmp_path / "m"
    if made in ("tagger", "placeholders"):
        path = tagger(folder, scores(PLACES, 4))
    else:
        count = {"two": 2, "one": 1}.get(made, 3)
        path = labeller(folder, scores({}, count), last="Sigmoid" if made == "sigmoid" else "")
    if labels:
        named(folder, labels)
    if made == "wordless":
        (folder / "vocab.txt").unlink()
    if made == "placeholders":
        (folder / "config.json").write_text(json.dumps({"id2label": {str(i): f"LABEL_{i}" for i in range(4)}}))
    with pytest.raises(RefusedError) as caught:
        catalogue.locate(str(path), read=lambda path: read(path).seen)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_one_that_says_the_same_of_everything_is_refused(tmp_path: Path) -> None:
    for make, count, labels in ((tagger, 4, TAGS), (labeller, 3, KINDS)):
        path = make(tmp_path / make.__name__, np.ones((len(WORDS), count), np.float32))
        named(path.parent, labels)
        with pytest.raises(RefusedError, match="it gives the same scores for"):
            Models(threads=1).serve(str(path))
    poisoned = scores(PLACES, 4)
    poisoned[WORDS.index("the")] = np.nan
    named(tagger(tmp_path / "nan", poisoned).parent, TAGS)
    with pytest.raises(ModelError, match="no finite score came out"):
        Models(threads=1).serve(str(tmp_path / "nan" / "net.onnx"))


def folder_of(path: Path, task: str, labels: list[str]) -> Path:
    """A model folder with an int8 variant before its parent."""
    rows = [row(path / name, how) for name, how in (("int8.onnx", "int8"), ("net.onnx", "fp32"))]
    (path / "manifest.toml").write_text(
        f'name = "m"\nversion = "1"\nlicence = "CC0-1.0"\ntrained_by = "nobody"\ntask = "{task}"\n'
        f'family = "bert-{"tagger" if task == "tag" else "classifier"}"\nlabels = {json.dumps(labels)}\n'
        f'[text]\nvocab = "vocab.txt"\nmax_length = 64\n{"".join(rows)}{row(path / "vocab.txt", "fp32", "vocab")}'
    )
    return path


@pytest.mark.parametrize("task", ["tag", "classify"])
@pytest.mark.parametrize("broken", [False, True])
def test_the_gate_holds_a_variant_against_its_parent(tmp_path: Path, task: str, broken: bool) -> None:
    make, of, labels = (tagger, PLACES, TAGS) if task == "tag" else (labeller, MOODS, KINDS)
    table = scores({**of, "b": 1, "s": 2, "##e": 1}, len(labels))
    make(tmp_path / "m", table)
    other = table + np.random.default_rng(1).normal(0, 1e-3 if not broken else 6, table.shape).astype(np.float32)
    make(tmp_path / "m", other, "int8.onnx")
    tried = {one.name: one for one in try_all(catalogue.locate(str(folder_of(tmp_path / "m", task, labels))), 1)}
    assert not tried["net.onnx"].refused
    if broken:
        assert "int8.onnx is refused: it does not agree with its parent: " in tried["int8.onnx"].refused
    else:
        assert tried["int8.onnx"].notes[-1].startswith("int8.onnx: agreement of the ")
        assert " 1.000 against net.onnx on 46 samples" in tried["int8.onnx"].notes[-1]


@pytest.mark.parametrize("task", ["tag", "classify"])
def test_one_that_says_the_same_as_its_parent_but_of_everything(tmp_path: Path, task: str) -> None:
    """In the sealed sentences the parent finds nothing either."""
    make, labels = (tagger, TAGS) if task == "tag" else (labeller, KINDS)
    table = np.random.default_rng(1).normal(0, 1, (len(WORDS), len(labels))).astype(np.float32)
    bias = np.zeros(len(labels), np.float32)
    bias[0] = 9
    make(tmp_path / "m", table + bias)
    make(tmp_path / "m", table * np.float32(0.01) + bias, "int8.onnx")
    tried = {one.name: one for one in try_all(catalogue.locate(str(folder_of(tmp_path / "m", task, labels))), 1)}
    assert not tried["net.onnx"].refused
    assert "does not agree with its parent: following of the shares (slope 0." in tried["int8.onnx"].refused


def test_a_manifest_without_labels_is_wrong(tmp_path: Path) -> None:
    tagger(tmp_path / "m", scores(PLACES, 4))
    tagger(tmp_path / "m", scores(PLACES, 4), "int8.onnx")
    with pytest.raises(ManifestError, match="needs labels, in the order of its outputs"):
        catalogue.locate(str(folder_of(tmp_path / "m", "tag", [])))
    with pytest.raises(ModelError, match="4 scores come out for 2 labels"):
        Models(threads=1).serve(str(folder_of(tmp_path / "m", "tag", ["O", "A"])))


def test_its_event_and_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tagger(tmp_path / "m", scores(PLACES, 4))
    named(path.parent, TAGS)
    task = make_task(parse_uri("tag:m"), lambda _: Models(threads=1).serve(str(path)), tmp_path)
    (finding,) = task(Text("the river book", 0.0, 0.0))
    event = to_event(finding, "notes")
    assert isinstance(event, SpansEvent) and event.text == "the river book"
    (span,) = event.spans
    assert (span.label, span.text, span.start, span.end) == ("PLACE", "river book", 4, 14)
    assert main(["models", "add", str(path), "--name", "places"]) == 0
    assert "in 40 everyday sentences of" in capsys.readouterr().out
    assert main(["understand", "places", "the river book"]) == 0
    assert capsys.readouterr().out.endswith('"river book"  the river book\n')
    assert main(["understand", "places", "the river book", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spans"][0]["text"] == "river book"
    assert main(["understand", "places", "the river", "--embed"]) == 2


# ── evaluate ─────────────────────────────────────────────────────────────────────────────────────────────


def test_evaluate_counts_whole_spans_of_the_right_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tagger(tmp_path / "m", scores(PLACES, 4))
    named(path.parent, TAGS)
    # the last span is longer than what is found, and one kind is another
    first, second = "the x O\nriver x B-PLACE\nbook x I-PLACE", "-DOCSTART-\nit x O\nunable x B-PLACE"
    conll = f"{first}\n\n{second}\n\nriver x B-PLACE\nis x I-PLACE\n"
    (tmp_path / "a.conll").write_text(conll)
    assert main(["evaluate", str(path), str(tmp_path / "a.conll"), "--against", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["task"], found["texts"], found["spans"]) == ("tag", 3, 3)
    assert found["precision"] == found["recall"] == found["f1"] == pytest.approx(1 / 3, abs=1e-6)
    assert found["against"]["f1"] == 1 and found["against"]["on_labels"]["f1"] == found["f1"]
    (tmp_path / "atis.iob").write_text("BOS the river book EOS\tO O B-PLACE I-PLACE go\n")
    assert main(["evaluate", str(path), str(tmp_path / "atis.iob")]) == 0
    assert "F1              1.0000\n" in capsys.readouterr().out
    (tmp_path / "plain.txt").write_text("the river\n")
    (tmp_path / "bad.conll").write_text("the\n")
    for name, more, says in (
        ("plain.txt", [], "texts without labels; give --against PARENT"),
        ("bad.conll", [], "line 1 has a word and no tag"),
        ("none.conll", [], "cannot be read"),
        ("a.conll", ["--score", "0.5"], "--score: not for"),
    ):
        assert main(["evaluate", str(path), str(tmp_path / name), *more]) == 2
        (said,) = lines_of(capsys.readouterr().err)
        assert says in said


@pytest.mark.parametrize("labels", [("storm", "song", "calm"), ("1", "2", "0"), ("Storm", "SONG", "calm")])
def test_evaluate_knows_labels_by_name_or_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: tuple[str, ...]
) -> None:
    path = labeller(tmp_path / "m", scores(MOODS, 3))
    named(path.parent, KINDS)
    rows = zip(["rain rain storm", "play music", "storm storm rain"], labels, strict=True)
    (tmp_path / "a.tsv").write_text("".join(f"{label}\t{text}\n" for text, label in rows))
    argv = ["evaluate", str(path), str(tmp_path / "a.tsv"), "--against", str(path), "--save", str(tmp_path / "out")]
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"] == pytest.approx(2 / 3, abs=1e-6) and found["against"]["agreement"] == 1
    assert main(argv) == 0 and "agreement       1.0000" in capsys.readouterr().out
    assert (tmp_path / "out" / "errors.tsv").read_text().splitlines()[1].startswith("storm storm rain\tcalm\tstorm\t")
    assert main([*argv, "--labels", "x.toml"]) == 2
