"""The teacher of the sentence vector: any sentence encoder that this program serves, e.g. all-MiniLM-L6-v2."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from edge_agent.gate import read
from edge_agent.registry import catalogue
from edge_agent.registry.files import file_path
from edge_agent.serving.models import Models
from edge_agent.tasks.text.encoder import Encoder, encoder
from edge_agent.workshop.train.bert.data import Corpus
from edge_agent.workshop.train.exported import cut

Vectors = Callable[[list[str]], NDArray[np.float32]]
WORDS = "embeddings.word_embeddings.weight"
"""end of the name of a BERT's vectors"""
UNREAD = "."
"""what is read in the place of a text of which the teacher reads nothing"""


def teacher(model: str) -> Encoder:
    """The encoder of that name or folder, fetched where it can be. EdgeAgentError for what is none."""
    return encoder(Models(pull=True).serve(model))


def vectors(one: Encoder) -> Vectors:
    """texts -> (n, E) float32 of length 1."""

    def run(texts: list[str]) -> NDArray[np.float32]:
        found = one.embed_many([text if len(one.words.encode(text, one.length)) > 2 else UNREAD for text in texts])
        unit: NDArray[np.float32] = found / np.linalg.norm(found, axis=1, keepdims=True).clip(1e-9)
        return unit

    return run


def _embeddings(network: Path) -> NDArray[np.float32] | None:
    """The vectors of a BERT's word pieces, a row each; None where its file does not name them so."""
    model = onnx.load(str(network))
    made = [name for node in model.graph.node for name in node.output]
    names = [name for name in [*(one.name for one in model.graph.initializer), *made] if name.endswith(WORDS)]
    if not names:
        return None
    try:
        part = cut(model, (), names[:1])
    except ValueError:
        return None  # made of more than constants
    found: NDArray[np.float32] = onnxruntime.InferenceSession(part.SerializeToString()).run(None, {})[0]
    return found


def token_vectors(model: str, one: Encoder, pieces: list[str], width: int) -> NDArray[np.float32] | None:
    """(pieces, width) the teacher's own vectors of our word pieces, reduced by PCA; None when it shows no weights.

    A piece that the teacher does not have gets the mean of the pieces that it would be cut into.
    """
    located = catalogue.locate(model, read=read.seen)
    row = next((row for row in located.manifest.networks() if row.format == "onnx"), None)
    vectors = _embeddings(file_path(located, row)) if row else None
    if vectors is None:
        return None
    known, found = one.words.vocab, np.zeros((len(pieces), vectors.shape[1]), np.float32)
    for place, piece in zip(found, pieces, strict=True):
        ids = [known[piece]] if piece in known else one.words.encode(piece.removeprefix("##"), one.length)[1:-1]
        place[:] = vectors[ids].mean(0) if ids else 0
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
