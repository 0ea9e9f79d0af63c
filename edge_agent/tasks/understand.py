"""``embed:MODEL`` and ``classify:MODEL?labels=FILE``: a Text -> its vector, or its label.

FILE is TOML: a table ``[labels]`` of ``name = ["sentence", …]``. The head on top of the encoder is fitted here when a
pair of model and file is first seen, and stored in HOME/heads.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_agent import files, toml
from edge_agent.config import option
from edge_agent.errors import ConfigError, InputError
from edge_agent.manifest import Served
from edge_agent.tasks.encoder import Encoder, encoder
from edge_agent.tasks.everyday import SENTENCES
from edge_agent.tasks.head import Head, fit
from edge_agent.types import Embedding, Finding, Scores, Task, Text, Uri

LEAST = 2
"""examples of a label"""
MOST = 20_000
"""examples in all"""
MOST_BYTES = 4_000_000
"""of a file of examples"""
VERSION = 1
"""of the stored heads and of how they are fitted: another one is fitted anew"""


@dataclass(slots=True)
class Embed:
    """The task ``embed``."""

    encoder: Encoder
    takes: tuple[type, ...] = (Text,)

    def __call__(self, item: Text) -> Iterator[Finding]:
        """One Finding with the text's vector. InputError for a text with nothing to read."""
        started = time.perf_counter()
        pieces = self.encoder.read(item.text)
        prepared = time.perf_counter()
        vector = self.encoder.embed(pieces)
        spent = {"prepare": (prepared - started) * 1e3, "infer": (time.perf_counter() - prepared) * 1e3}
        yield Finding(item, Embedding(vector), self.encoder.model.ref, spent)


@dataclass(slots=True)
class Classify:
    """The task ``classify``."""

    encoder: Encoder
    head: Head
    takes: tuple[type, ...] = (Text,)

    def __call__(self, item: Text) -> Iterator[Finding]:
        """One Finding with the text's Scores, "unknown" among them. InputError for a text with nothing to read."""
        started = time.perf_counter()
        pieces = self.encoder.read(item.text)
        prepared = time.perf_counter()
        vector = self.encoder.embed(pieces)
        inferred = time.perf_counter()
        scores = self.head(vector)
        label = max(scores, key=scores.__getitem__)
        spent = {
            "prepare": (prepared - started) * 1e3,
            "infer": (inferred - prepared) * 1e3,
            "finish": (time.perf_counter() - inferred) * 1e3,
        }
        yield Finding(item, Scores(label, scores[label], scores), self.encoder.model.ref, spent)


def embed(uri: Uri, model: Served, home: Path) -> Task:
    """Make the task. ConfigError for an option, ManifestError for a model that is no encoder."""
    for key in uri.options:
        option(uri, {}, key)
    return Embed(encoder(model))


def classify(uri: Uri, model: Served, home: Path) -> Task:
    """Make the task; fits the head, or takes the one stored below `home`. A text classifier has labels of its own.

    ConfigError for the labels file (missing, empty, one label, too few examples), ManifestError for a model that is
    no encoder.
    """
    if model.manifest.task == "classify":
        from edge_agent.tasks.texthead import labeller

        return labeller(uri, model)
    path = option(uri, {"labels": ""}, "labels")
    if not path:
        raise ConfigError(f'"{uri}": no labels; write "classify:{uri.rest}?labels=FILE.toml"')
    raw, labels = read_labels(Path(path).expanduser())
    made = encoder(model)
    # another vocabulary beside the same network gives other vectors
    words = []
    for role in sorted(model.parts):
        with model.part(role) as source:
            words.append(hashlib.sha256(source.read_bytes()).hexdigest())
    told = f"{VERSION} {model.ref.sha256} {model.manifest.text} {words} "
    key = hashlib.sha256(told.encode() + raw).hexdigest()
    place = home / "heads" / f"{key}.npz"
    head = load(place, tuple(labels), len(made.embed(made.read("a"))))
    if head is None:
        head = _fit(made, labels, path)
        save(place, head)
    return Classify(made, head)


def read_labels(path: Path) -> tuple[bytes, dict[str, list[str]]]:
    """The file as it is, and its table label -> sentences. ConfigError, one line with file, label and mend."""
    try:
        text = toml.read_text(path, MOST_BYTES)
        table = toml.parse(text)
        labels = msgspec.convert(table.get("labels", {}), dict[str, list[str]])
    except ConfigError as error:
        raise ConfigError(f"labels: {path}: {error}") from None
    except (msgspec.ValidationError, RecursionError):
        bad = next((f"{key} is no list of texts" for key, value in _pairs(table) if not _texts(value)), "no table")
        raise ConfigError(f'labels: {path}: [labels]: {bad}; write name = ["sentence", "sentence"]') from None
    raw = text.encode()
    if not labels and set(table) - {"labels"}:
        raise ConfigError(f'labels: {path}: no [labels] in it; write [labels], and below it name = ["sentence", …]')
    if len(labels) < 2:
        raise ConfigError(f'{path}: {len(labels)} labels; [labels] needs two or more, name = ["sentence", …]')
    seen: dict[str, str] = {}
    for label, sentences in labels.items():
        if len(sentences) < LEAST:
            raise ConfigError(f'{path}: label "{label}" has {len(sentences)} examples; give at least {LEAST}, better 8')
        for sentence in sentences:
            if not sentence.strip():
                raise ConfigError(f'{path}: label "{label}" has an empty example; delete it')
            if seen.setdefault(sentence, label) != label:
                raise ConfigError(f'{path}: "{sentence}" is an example of "{seen[sentence]}" and of "{label}"; choose')
    if sum(map(len, labels.values())) > MOST:
        raise ConfigError(f"{path}: more than {MOST} examples; a few dozen a label are enough")
    return raw, labels


def _pairs(table: dict[str, Any]) -> Iterable[tuple[str, object]]:
    labels = table["labels"]
    return labels.items() if isinstance(labels, dict) else ()


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _fit(made: Encoder, labels: dict[str, list[str]], path: str) -> Head:
    """Embed the examples and fit."""
    y = np.repeat(np.arange(len(labels)), [len(sentences) for sentences in labels.values()])
    try:
        vectors = made.embed_many([sentence for sentences in labels.values() for sentence in sentences])
    except InputError as error:
        raise ConfigError(f"{path}: an example cannot be used: {error}") from None
    return fit(vectors, y, tuple(labels), made.embed_many(SENTENCES))


# ── stored heads ─────────────────────────────────────────────────────────────────────────────────────────

COLUMNS = ("weight", "bias", "examples", "fits")


def save(path: Path, head: Head) -> None:
    """Store a head whole or not at all. On a disk that takes nothing it is fitted again at the next start."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    columns = {key: getattr(head, key) for key in COLUMNS}
    with contextlib.suppress(OSError):
        files.folder(path.parent)
        with part.open("wb") as file:
            files.settle(file.fileno(), path.parent)
            np.savez(file, labels=np.array(head.labels), **columns)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    with contextlib.suppress(OSError):
        part.unlink()


def load(path: Path, labels: tuple[str, ...], size: int) -> Head | None:
    """A stored head for these labels and vectors of `size`; None when it is not there or not what it should be."""
    try:
        with np.load(path, allow_pickle=False) as store:
            named = tuple(str(label) for label in store["labels"])
            parts = [store[key] for key in COLUMNS]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    weight, bias, examples, fits = parts
    shapes = [(size, len(labels)), (len(labels),), (len(examples) if examples.ndim else 0, size), (3,)]
    fine = all(part.dtype == np.float32 and np.isfinite(part).all() for part in parts)
    if named != labels or not fine or [part.shape for part in parts] != shapes or not len(examples):
        return None
    return Head(labels, weight, bias, examples, fits)
