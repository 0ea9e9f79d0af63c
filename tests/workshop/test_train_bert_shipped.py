"""The edge-bert that the project carries: its files, its vectors, and what it has learnt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from edge_agent.backends.onnx import multiply_exactly
from edge_agent.backends.tflite import load as load_tflite
from edge_agent.manifest import Manifest, load
from edge_agent.tasks.text import vocabulary, wordpiece
from edge_agent.workshop.train.bert.data import CLS, MASK, SEP

MODEL = Path(__file__).resolve().parents[2] / "models" / "edge-bert"


Run = Callable[[NDArray[np.int64], NDArray[np.int64]], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""(ids, types) (n, L), 0 where nothing stands -> (hidden, embedding)"""


def session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    multiply_exactly(options)
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def runner(file: Path) -> Run:
    net = session(file)

    def run(ids: NDArray[np.int64], types: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        seen = (ids != 0).astype(np.int64)
        found = net.run(None, {"input_ids": ids, "attention_mask": seen, "token_type_ids": types})
        return found[0], found[1]

    return run


def table(rows: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Rows of ids, padded to the longest."""
    out = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for line, row in zip(out, rows, strict=True):
        line[: len(row)] = row
    return out


def embed(texts: Sequence[str], words: wordpiece.WordPiece, run: Run) -> NDArray[np.float32]:
    """(n, E), each text at its own length."""
    rows = [words.encode(text, 128) for text in texts]
    return np.concatenate([run(table([row]), table([[0] * len(row)]))[1] for row in rows])


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return load(MODEL / "manifest.toml")


@pytest.fixture(scope="module")
def words() -> wordpiece.WordPiece:
    return vocabulary.from_vocab(MODEL / "vocab.txt", True)


@pytest.fixture(scope="module", params=["encoder.onnx", "encoder.int8.onnx"])
def run(request: pytest.FixtureRequest) -> Run:
    return runner(MODEL / request.param)


def test_files_are_those_of_the_manifest_and_small(manifest: Manifest) -> None:
    for row in manifest.file:
        content = (MODEL / row.name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (row.bytes, row.sha256), row.name
    assert {(r.role, r.format) for r in manifest.file} >= {
        ("encoder", "onnx"),
        ("encoder", "tflite"),
        ("mlm", "onnx"),
        ("nsp", "onnx"),
    }
    assert sum(f.stat().st_size for f in MODEL.iterdir()) <= 15.5e6
    assert manifest.text is not None
    assert manifest.card is not None
    assert (MODEL / manifest.card).is_file()


def test_golden_numbers(words: wordpiece.WordPiece, run: Run) -> None:
    for row in json.loads((MODEL / "golden.json").read_text(encoding="utf-8")):
        assert words.encode(row["text"], 128) == row["ids"]
        vector = embed([row["text"]], words, run)[0]
        np.testing.assert_allclose(vector[:8], row["embedding"], atol=0.02)
        assert float(vector @ vector) == pytest.approx(1.0, abs=1e-4)


def test_tflite_and_onnx_give_the_same_vectors(words: wordpiece.WordPiece) -> None:
    lite, onnx = (
        load_tflite(MODEL / "encoder.int8.tflite", 1, MODEL / "encoder.int8.tflite"),
        runner(MODEL / "encoder.onnx"),
    )
    for text in ("Yes.", "What is the weather like in Boston?", "word " * 120):
        ids = words.encode(text, 128)
        feed = {"input_ids": [ids], "attention_mask": [[1] * len(ids)], "token_type_ids": [[0] * len(ids)]}
        found = lite.run({k: np.array(v, np.int32) for k, v in feed.items()})["embedding"][0]
        assert float(found @ embed([text], words, onnx)[0]) > 0.98, text


def test_a_text_has_the_same_vector_alone_and_in_a_batch(words: wordpiece.WordPiece) -> None:
    run = runner(MODEL / "encoder.onnx")
    rows = [words.encode(t, 128) for t in ("Play some jazz.", "Remind me to call my mother at six tomorrow evening.")]
    ids = table(rows)
    together = run(ids, np.zeros_like(ids))[1]
    alone = run(table(rows[:1]), np.zeros((1, len(rows[0])), np.int64))[1]
    np.testing.assert_allclose(together[0], alone[0], atol=1e-4)


@pytest.mark.parametrize(
    ("text", "plausible"),
    [
        ("The president of the united [MASK] spoke to congress.", {"states"}),
        ("Please turn [MASK] the lights in the kitchen.", {"on", "off", "up", "down"}),
        ("He did not want [MASK] go home.", {"to"}),
        ("She looked at him [MASK] smiled.", {"and"}),
        ("It was one of [MASK] best days of my life.", {"the", "my"}),
        ("Set an [MASK] for six in the morning.", {"alarm", "appointment", "event"}),
    ],
)
def test_masked_words_are_filled_plausibly(
    words: wordpiece.WordPiece, run: Run, text: str, plausible: set[str]
) -> None:
    before, after = (words.encode(part, 64)[1:-1] for part in text.split("[MASK]"))
    ids = np.array([[CLS, *before, MASK, *after, SEP]])
    hidden = run(ids, np.zeros_like(ids))[0][:, [len(before) + 1]]
    logits = session(MODEL / "mlm.int8.onnx").run(None, {"hidden": hidden})[0][0, 0]
    names = (MODEL / "vocab.txt").read_text(encoding="utf-8").splitlines()
    best = {names[i] for i in np.argsort(-logits)[:5]}
    assert best & plausible, best


PAIRS = [
    ("The cell is the smallest unit of life.", "Each cell is surrounded by a membrane that controls what enters it."),
    ("I would like a large coffee with milk.", "Sure, your coffee will be ready in a few minutes."),
    ("The price of a good rises when demand grows.", "When the price is higher, producers supply more of the good."),
    ("He knocked at the door of the old house.", "An old woman opened it and asked him what he wanted."),
    ("Congress passed the law in spring.", "The president signed the bill two weeks later."),
    ("A force acts on a moving object.", "Its acceleration is the force divided by the mass."),
]


def test_the_true_next_sentence_is_preferred_to_strangers(words: wordpiece.WordPiece, run: Run) -> None:
    head = session(MODEL / "nsp.onnx")

    def margin(first: str, second: str) -> float:
        a, b = (words.encode(t, 64) for t in (first, second))
        ids = np.array([[*a, *b[1:]]])
        types = np.array([[0] * len(a) + [1] * (len(b) - 1)])
        logits = head.run(None, {"hidden": run(ids, types)[0]})[0][0]
        return float(logits[0] - logits[1])

    won = [
        margin(first, second) > margin(first, stranger)
        for first, second in PAIRS
        for _, stranger in PAIRS
        if stranger != second
    ]
    assert sum(won) / len(won) >= 0.75


ALIKE = [
    ("Turn on the light in the bedroom.", "Switch the bedroom lamp on.", "Play the new album of the band."),
    ("What is the weather like tomorrow?", "Will it rain tomorrow?", "Book a table for two at the restaurant."),
    ("Set an alarm for six in the morning.", "Wake me up at six am.", "What movies are playing tonight?"),
    ("The company reported higher profits.", "The firm's earnings grew.", "The dog ran across the field."),
    ("How much does the ticket cost?", "What is the price of the ticket?", "The heart pumps blood through the body."),
]


def test_paraphrases_are_closer_than_strangers(words: wordpiece.WordPiece, run: Run) -> None:
    for text, same, other in ALIKE:
        a, b, c = embed([text, same, other], words, run)
        assert float(a @ b) > float(a @ c) + 0.1, text
