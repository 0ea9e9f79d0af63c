"""The teacher of the sentence vector: any sentence encoder of the registry's form, e.g. all-MiniLM-L6-v2.

onnxruntime runs its file: on a GPU where the onnxruntime that is installed has one, else on the processor.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from edge_agent.errors import ModelError
from edge_agent.workshop.train.bert.data import Corpus
from edge_agent.workshop.train.bert.vocab import bulk_tokenizer
from edge_agent.workshop.train.exported import cut

Vectors = Callable[[list[str]], NDArray[np.float32]]
LONGEST = 128
WORDS = "embeddings.word_embeddings.weight"
"""end of the name of a BERT's vectors"""


@dataclass(frozen=True)
class TeacherParts:
    """The files of a teacher."""

    network: Path
    tokens: Path
    json: bool
    """whether `tokens` is a tokenizer.json; else a vocab.txt"""
    pooling: str
    """as in a manifest: mean, cls or output:NAME"""


def parts(model: str) -> TeacherParts:
    """The ONNX encoder of a model (name in the registry, or folder), fetched where it can be; raises ModelError."""
    from edge_agent.registry import catalogue
    from edge_agent.registry.files import file_path

    located = catalogue.locate(model, pull=True)
    text, rows = located.manifest.text, located.manifest.file
    networks = [f for f in located.manifest.networks() if f.format == "onnx"]
    words = [f for f in rows if f.role in ("tokenizer", "vocab")]
    if located.manifest.task != "encode" or text is None or not networks or not words:
        raise ModelError(
            f"{model}: a teacher for text is an encoder with an ONNX file and its vocabulary; this is none"
        )
    files = [file_path(located, row, pull=True) for row in (networks[0], words[0])]
    return TeacherParts(files[0], files[1], words[0].role == "tokenizer", text.pooling)


def teacher(p: TeacherParts, threads: int = 0) -> Vectors:
    """texts -> (n, E) float32 of length 1; `threads` 0 takes all."""
    tokenizer, run = _tokenizer(p), _session(p, threads)
    return lambda texts: _in_batches(tokenizer, texts, 32, run)


def _tokenizer(p: TeacherParts) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(p.tokens)) if p.json else bulk_tokenizer(p.tokens)
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    return tokenizer


def _in_batches(
    tokenizer: Any, texts: list[str], size: int, run: Callable[[NDArray[np.int64]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Runs texts of like length together; ids are (n, L) int64 with 0 as padding."""
    ids = [e.ids for e in tokenizer.encode_batch(texts)]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    found: list[NDArray[np.float32]] = []
    for at in range(0, len(order), size):
        batch = [ids[i] for i in order[at : at + size]]
        table = np.zeros((len(batch), len(batch[-1])), np.int64)
        for row, words in zip(table, batch, strict=True):
            row[: len(words)] = words
        found.append(run(table))
    vectors = np.concatenate(found)
    back = np.empty_like(vectors)
    back[order] = vectors
    return back


def _session(p: TeacherParts, threads: int) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    pooling, options = p.pooling, onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(p.network), options, providers=onnxruntime.get_available_providers())
    wanted = {i.name for i in session.get_inputs()}
    output = pooling.removeprefix("output:") if pooling.startswith("output:") else session.get_outputs()[0].name

    def run(ids: NDArray[np.int64]) -> NDArray[np.float32]:
        seen = (ids != 0).astype(np.int64)
        feed = {"input_ids": ids, "attention_mask": seen, "token_type_ids": np.zeros_like(ids)}
        out = session.run([output], {k: v for k, v in feed.items() if k in wanted})[0]
        if out.ndim == 3:
            here = seen[:, :, None].astype(np.float32)
            out = out[:, 0] if pooling == "cls" else (out * here).sum(1) / here.sum(1)
        vectors: NDArray[np.float32] = out / np.linalg.norm(out, axis=1, keepdims=True).clip(1e-9)
        return vectors

    return run


def _embeddings(network: Path) -> NDArray[np.float32] | None:
    """The vectors of a BERT's word pieces, a row each; None where its file does not name them so."""
    model = onnx.load(str(network))
    made = [name for node in model.graph.node for name in node.output]
    names = [name for name in [*(one.name for one in model.graph.initializer), *made] if name.endswith(WORDS)]
    if not names:
        return None
    part = cut(model, names[:1])
    if part.graph.input:
        return None
    found: NDArray[np.float32] = onnxruntime.InferenceSession(part.SerializeToString()).run(None, {})[0]
    return found


def token_vectors(p: TeacherParts, pieces: list[str], width: int) -> NDArray[np.float32] | None:
    """(pieces, width) the teacher's own vectors of our word pieces, reduced by PCA; None when it shows no weights.

    A piece that the teacher does not have gets the mean of the pieces that it would be cut into.
    """
    vectors = _embeddings(p.network)
    if vectors is None:
        return None
    tokenizer = _tokenizer(p)
    known = tokenizer.get_vocab()
    found = np.zeros((len(pieces), vectors.shape[1]), np.float32)
    for row, piece in zip(found, pieces, strict=True):
        plain = piece.removeprefix("##")
        ids = [known[piece]] if piece in known else tokenizer.encode(plain, add_special_tokens=False).ids
        row[:] = vectors[ids].mean(0) if ids else 0
    found -= found.mean(0)
    axes = np.linalg.svd(found, full_matrices=False)[2][:width]
    reduced: NDArray[np.float32] = found @ axes.T
    return reduced


def texts(corpus: Corpus, count: int, seed: int) -> list[str]:
    """What the teacher is asked: of each source as many, mostly whole sentences.

    One in five is a run of two to ten words of a sentence, one in ten two sentences that follow each other, one in ten
    a sentence in which a word was swapped for one of another sentence: so that short and odd commands are covered too.
    """
    dice = random.Random(seed)
    found = []
    for source in dice.choices(range(len(corpus.names)), k=count):
        low, high = int(corpus.source[source]), int(corpus.source[source + 1])
        at = dice.randrange(low, high)
        line, way = corpus.text[at], dice.random()
        if way < 0.2:
            words = line.split()
            start = dice.randrange(len(words))
            line = " ".join(words[start : start + dice.randint(2, 10)])
        elif way < 0.3 and at + 1 < high:
            line += " " + corpus.text[at + 1]
        elif way < 0.4:
            words = line.split()
            words[dice.randrange(len(words))] = dice.choice(corpus.text[dice.randrange(low, high)].split())
            line = " ".join(words)
        found.append(line)
    return found
