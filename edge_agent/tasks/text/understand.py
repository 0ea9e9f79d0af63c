"""``embed:MODEL`` and ``classify:MODEL?labels=FILE``: a Text -> its vector, or its label.

FILE is TOML: a table ``[labels]`` of ``name = ["sentence", …]``. The head on top of the encoder is fitted here when a
pair of model and file is first seen, and stored in HOME/heads.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_agent import files, toml
from edge_agent.errors import ConfigError, InputError
from edge_agent.manifest import Served
from edge_agent.samples import everyday
from edge_agent.tasks.text import characters, counted, crossval, logistic, vocabulary, wordpiece
from edge_agent.tasks.text import encoder as encoder_module
from edge_agent.tasks.text import head as head_module
from edge_agent.tasks.text.counted import BUCKETS
from edge_agent.tasks.text.encoder import Encoder, encoder
from edge_agent.tasks.text.head import UNKNOWN, LabelHead, fit, strangers
from edge_agent.types import Embedding, Finding, Scores, Task, Text
from edge_agent.uri import Uri, option

LEAST = 2
"""examples of a label"""
MOST = 20_000
"""examples in all"""
MOST_BYTES = 4_000_000
"""of a file of examples"""


@dataclass(slots=True)
class Embed:
    """The task ``embed``."""

    encoder: Encoder
    whole: bool = False
    """the mean over the windows of a long text, instead of the vector of its beginning"""
    takes: tuple[type, ...] = (Text,)

    def __call__(self, item: Text) -> Iterator[Finding]:
        """One Finding with the text's vector. InputError for a text with nothing to read."""
        started = time.perf_counter()
        windows = [ids for ids, _ in self.encoder.windows(item.text)] if self.whole else []
        windows = windows or [self.encoder.read(item.text)]
        prepared = time.perf_counter()
        vector = np.stack([self.encoder.embed(ids) for ids in windows]).mean(axis=0, dtype=np.float32)
        if self.encoder.text.normalize and len(windows) > 1:
            vector /= max(float(np.linalg.norm(vector)), 1e-12)
        spent = {"prepare": (prepared - started) * 1e3, "infer": (time.perf_counter() - prepared) * 1e3}
        yield Finding(item, Embedding(vector), self.encoder.model.ref, spent)


@dataclass(slots=True)
class Classify:
    """The task ``classify``."""

    encoder: Encoder
    head: LabelHead
    takes: tuple[type, ...] = (Text,)

    @property
    def gives_names(self) -> list[str]:
        """The labels that it may give."""
        return list(self.head.labels)

    def __call__(self, item: Text) -> Iterator[Finding]:
        """One Finding with the text's Scores, "unknown" among them. InputError for a text with nothing to read.

        Of a long text the window that fits a label best is told; a text that the encoder cannot read is unknown.
        """
        started = time.perf_counter()
        windows = self.encoder.windows(item.text)
        prepared = time.perf_counter()
        vectors = [self.encoder.embed(ids) for ids, _ in windows]
        inferred = time.perf_counter()
        told = [self.head(vector, text) for vector, (_, text) in zip(vectors, windows, strict=True)]
        none = {UNKNOWN: 1.0, **{label: 0.0 for label in self.head.labels if label != UNKNOWN}}
        scores = min(told, key=lambda one: one[UNKNOWN], default=none)
        label = max(scores, key=scores.__getitem__)
        spent = {
            "prepare": (prepared - started) * 1e3,
            "infer": (inferred - prepared) * 1e3,
            "finish": (time.perf_counter() - inferred) * 1e3,
        }
        yield Finding(item, Scores(label, scores[label], scores), self.encoder.model.ref, spent)


def embed(uri: Uri, model: Served, home: Path) -> Task:
    """Make the task. ConfigError for an option, ManifestError for a model that is no encoder.

    ``long=mean``: the mean over a long text's windows; else its beginning, as the model's makers read it.
    """
    long = option(uri, {"long": "cut"}, "long")
    if long not in ("cut", "mean"):
        raise ConfigError(f'"{uri}": long={long}; write long=cut (the beginning of a long text) or long=mean')
    return Embed(encoder(model), long == "mean")


def classify(uri: Uri, model: Served, home: Path) -> Task:
    """Make the task; fits the head, or takes the one stored below `home`. A text classifier has labels of its own.

    ConfigError for the labels file (missing, empty, one label, too few examples), ManifestError for a model that is
    no encoder.
    """
    if model.manifest.task == "classify":
        from edge_agent.tasks.text.texthead import labeller

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
    told = f"{_code()} {model.ref.sha256} {model.manifest.text} {words} "
    key = hashlib.sha256(told.encode() + raw).hexdigest()
    place = home / "heads" / f"{key}.npz"
    head = load(place, tuple(strangers(labels)), len(made.embed(made.read("a"))))
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
    _check_examples(path, labels)
    if sum(map(len, labels.values())) > MOST:
        raise ConfigError(f"{path}: more than {MOST} examples; a few dozen a label are enough")
    return raw, labels


def _check_examples(path: Path, labels: dict[str, list[str]]) -> None:
    seen: dict[str, str] = {}
    for label, sentences in labels.items():
        if len(sentences) < LEAST:
            raise ConfigError(f'{path}: label "{label}" has {len(sentences)} examples; give at least {LEAST}, better 8')
        for sentence in sentences:
            if not sentence.strip():
                raise ConfigError(f'{path}: label "{label}" has an empty example; delete it')
            if seen.setdefault(sentence, label) != label:
                raise ConfigError(f'{path}: "{sentence}" is an example of "{seen[sentence]}" and of "{label}"; choose')


def _pairs(table: dict[str, Any]) -> Iterable[tuple[str, object]]:
    labels = table["labels"]
    return labels.items() if isinstance(labels, dict) else ()


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


CODE = (head_module, counted, crossval, logistic, everyday, wordpiece, characters, vocabulary, encoder_module)
"""what reads texts and fits heads"""


def _code() -> str:
    """Of the code that reads texts and fits heads: a head that other code made is fitted anew."""
    digest = hashlib.sha256()
    for module in CODE:
        with contextlib.suppress(OSError):
            digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()


def _fit(made: Encoder, labels: dict[str, list[str]], path: str) -> LabelHead:
    """Embed the examples and fit. ConfigError for one that the encoder cannot read."""
    for label, sentence in ((label, sentence) for label, sentences in labels.items() for sentence in sentences):
        try:
            if made.windows(sentence):
                continue
        except InputError as error:
            raise ConfigError(f"{path}: an example cannot be used: {error}") from None
        raise ConfigError(
            f'{path}: label "{label}": {made.model.ref.name} knows hardly a word of "{sentence}"; '
            "write it in a language that the model was made for, or use another model"
        )
    return learn(made, labels)


def learn(made: Encoder, labels: dict[str, list[str]]) -> LabelHead:
    """A head fitted on these examples of each label, and on what shows what is unknown."""
    shown = strangers(labels)
    y = np.repeat(np.arange(len(shown)), [len(sentences) for sentences in shown.values()])
    texts = [sentence for sentences in shown.values() for sentence in sentences]
    return fit(made.embed_many(texts), y, tuple(shown), texts)


# ── stored heads ─────────────────────────────────────────────────────────────────────────────────────────

DIGEST = hashlib.sha256().digest_size
"""bytes before the rest of a stored head, which they are of"""
COLUMNS = ("weight", "bias", "counted", "examples", "at", "much", "first", "rare", "limit")


def save(path: Path, head: LabelHead) -> None:
    """Store a head whole or not at all. On a disk that takes nothing it is fitted again at the next start."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    columns = {key: getattr(head, key) for key in COLUMNS}
    with contextlib.suppress(OSError):
        files.folder(path.parent)
        with part.open("wb") as file:
            files.settle(file.fileno(), path.parent)
            packed = io.BytesIO()
            np.savez(packed, labels=np.array(head.labels), **columns)
            file.write(hashlib.sha256(packed.getbuffer()).digest() + packed.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    with contextlib.suppress(OSError):
        part.unlink()


def load(path: Path, labels: tuple[str, ...], size: int) -> LabelHead | None:
    """A stored head for these labels and vectors of `size`; None when it is not there or not what it should be."""
    try:
        raw = path.read_bytes()
        if hashlib.sha256(raw[DIGEST:]).digest() != raw[:DIGEST]:
            return None
        with np.load(io.BytesIO(raw[DIGEST:]), allow_pickle=False) as store:
            named = tuple(str(label) for label in store["labels"])
            parts = [store[key] for key in COLUMNS]
    except (OSError, ValueError, KeyError, EOFError):
        return None
    head = LabelHead(labels, *parts)
    shapes = (head.weight.shape, head.bias.shape, head.counted.shape, head.examples.shape[1:], head.limit.shape)
    count = len(labels)
    if named != labels or shapes != ((size, count), (count,), (BUCKETS, count), (size,), (2,)):
        return None
    return head if all(np.isfinite(part).all() for part in parts) else None
