"""Text for a BERT: files -> documents -> token ids, and the two tasks of its pre-training, as the paper sets them.

Devlin et al. 2018 (arXiv:1810.04805), section 3.1 and appendix A: of the tokens 15 % are chosen, of these 80 % become
[MASK], 10 % a random token and 10 % stay; of the pairs half are true neighbours and half are strangers.
"""

from __future__ import annotations

import lzma
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import InputError, UsageError

if TYPE_CHECKING:
    import torch


PAD, UNK, CLS, SEP, MASK = range(5)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
HELD_OUT = 50
"""one document in so many is kept for the measurements"""
LEAST_SENTENCES = 200


@dataclass(frozen=True)
class TextSource:
    """One file of text."""

    name: str
    documents: list[list[str]]


@dataclass(frozen=True)
class Corpus:
    """Sources laid end to end; a sentence is a run of `tokens`, a document a run of sentences, a source likewise."""

    tokens: NDArray[np.int32]
    sentence: NDArray[np.int64]
    """(S + 1,) where each sentence begins in `tokens`"""
    document: NDArray[np.int64]
    """(S,) the document of each sentence"""
    span: NDArray[np.int64]
    """(D + 1,) where each document begins in `tokens`"""
    source: NDArray[np.int64]
    """(F + 1,) where each source begins among the sentences"""
    names: list[str]
    text: list[str]
    """(S,) the sentences as they were read, folded"""


def fold(text: str) -> str:
    """Lower case, accents away, runs of blanks to one: what the uncased tokenizer would do first."""
    plain = unicodedata.normalize("NFD", text.lower())
    return " ".join("".join(c for c in plain if unicodedata.category(c) != "Mn").split())


def read_documents(path: Path) -> list[list[str]]:
    """The documents of a .txt or .xz file: one sentence a line, a blank line between documents.

    Raises InputError for a file that is absent, empty, not UTF-8 or not text.
    """
    text = _text(path)
    documents: list[list[str]] = [[]]
    for line in text.split("\n"):
        folded = fold(line)
        if folded:
            documents[-1].append(folded)
        elif documents[-1]:
            documents.append([])
    found = [d for d in documents if d]
    if not found:
        raise InputError(f"{path}: holds no text")
    return found


def _text(path: Path) -> str:
    """What a file holds, unpacked. InputError."""
    try:
        raw = path.read_bytes()
        if path.suffix == ".xz":
            raw = lzma.decompress(raw)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except lzma.LZMAError as error:
        raise InputError(f"{path}: is no whole xz file: {error}") from None
    if b"\0" in raw[:4096]:
        raise InputError(f"{path}: is not text; give .txt or .xz files with one sentence a line")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 at byte {error.start}; convert it with iconv") from None


def read_sources(paths: Sequence[Path], say: Callable[[str], None], most: int = 0) -> list[TextSource]:
    """Each file (or each .txt and .xz of a folder) as a Source; bad files are named through `say` and skipped.

    `most`: characters kept of one file, in whole documents drawn by their own text; 0 keeps all. Raises UsageError
    when what is left is too little to learn from.
    """
    sources = []
    for file in _files(paths):
        try:
            documents = read_documents(file)
        except InputError as error:
            say(f"skipped {error}")
            continue
        kept = _some(documents, most) if most else documents
        sources.append(TextSource(file.name.split(".")[0], kept))
        part = "" if len(kept) == len(documents) else f" of {len(documents)}"
        say(f"{file}: {len(kept)}{part} documents, {sum(map(len, kept))} sentences")
    sentences = sum(len(d) for s in sources for d in s.documents)
    if sentences < LEAST_SENTENCES:
        names = ", ".join(str(p) for p in paths)
        raise UsageError(f"{names}: {sentences} usable sentences; {LEAST_SENTENCES} are the least to train on")
    return sources


def _files(paths: Sequence[Path]) -> list[Path]:
    return [f for p in paths for f in (sorted([*p.glob("*.txt"), *p.glob("*.xz")]) if p.is_dir() else [p])]


def _key(document: list[str]) -> int:
    return zlib.crc32("\n".join(document).encode())


def _some(documents: list[list[str]], most: int) -> list[list[str]]:
    size, kept = 0, set()
    for at in sorted(range(len(documents)), key=lambda i: _key(documents[i])):
        kept.add(at)
        size += sum(map(len, documents[at]))
        if size > most:
            break
    return [d for i, d in enumerate(documents) if i in kept]


def held_out(document: list[str]) -> bool:
    """Whether a document is kept for measuring: by its own text alone, so that it is the same one everywhere."""
    return _key(document) % HELD_OUT == 0


def split(sources: Sequence[TextSource]) -> tuple[list[TextSource], list[TextSource]]:
    """(to train on, held out), by whole documents."""
    return _part(sources, False), _part(sources, True)


def _part(sources: Sequence[TextSource], held: bool) -> list[TextSource]:
    """The sources with the documents that are held out, or with the others; without empty sources."""
    some = [TextSource(s.name, [d for d in s.documents if held_out(d) == held]) for s in sources]
    return [s for s in some if s.documents]


def encode(sources: Sequence[TextSource], tokenizer: Any) -> Corpus:
    """Token ids of whole sources, by a `tokenizers` tokenizer; sentences without a token are left out."""
    parts: list[NDArray[np.int32]] = []
    lengths: list[int] = []
    document: list[int] = []
    text: list[str] = []
    ends, number = [0], 0
    for source in sources:
        lines = [line for d in source.documents for line in d]
        ids = [e.ids for e in tokenizer.encode_batch(lines, add_special_tokens=False)]
        at = 0
        for d in source.documents:
            for line, words in zip(d, ids[at : at + len(d)], strict=True):
                if words:
                    lengths.append(len(words))
                    document.append(number)
                    text.append(line)
            at += len(d)
            number += 1
        parts.append(np.fromiter(chain.from_iterable(ids), np.int32))
        ends.append(len(lengths))
    sentence = np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64))]).astype(np.int64)
    documents = np.unique(np.asarray(document, np.int64), return_inverse=True)[1].astype(np.int64)
    first = np.flatnonzero(np.diff(documents, prepend=-1))
    span = np.concatenate([sentence[first], sentence[-1:]])
    names = [s.name for s in sources]
    return Corpus(np.concatenate(parts), sentence, documents, span, np.asarray(ends, np.int64), names, text)


@dataclass(frozen=True)
class Deck:
    """A Corpus on the device that trains, from which batches are dealt."""

    tokens: torch.Tensor
    sentence: torch.Tensor
    document: torch.Tensor
    span: torch.Tensor
    source: torch.Tensor
    share: torch.Tensor
    """(F,) how often each source is drawn"""


def deck(corpus: Corpus, device: str, power: float = 0.5) -> Deck:
    """`power` < 1 draws small sources more often than their size: share ~ tokens ** power."""
    import torch

    size = np.diff(corpus.sentence[corpus.source]).astype(np.float64) ** power
    share = torch.tensor(size / size.sum(), dtype=torch.float32, device=device)
    arrays = (corpus.tokens, corpus.sentence, corpus.document, corpus.span, corpus.source)
    tokens, sentence, document, span, source = (torch.from_numpy(a).to(device) for a in arrays)
    return Deck(tokens, sentence, document, span, source, share)


def draw(d: Deck, n: int, g: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(n,) sentences, each of a source drawn by its share, and those sources."""
    import torch

    source = torch.multinomial(d.share, n, replacement=True, generator=g)
    return _within(d, source, g), source


def _within(d: Deck, source: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    import torch

    low, high = d.source[source], d.source[source + 1]
    dart = torch.rand(len(source), generator=g, device=low.device, dtype=torch.float64)
    return low + (dart * (high - low)).long()


def pairs(d: Deck, n: int, g: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(sentence A, sentence B, label) of n pairs: label 0 where B follows A, 1 where it is a stranger, half and half.

    A stranger comes from another document: of the same source in half of the cases, of any in the other half.
    """
    import torch

    a, source = draw(d, n, g)
    last = len(d.document) - 1
    ends = (a == last) | (d.document[(a + 1).clamp(max=last)] != d.document[a])
    a = torch.where(ends & (a > 0) & (d.document[(a - 1).clamp(min=0)] == d.document[a]), a - 1, a)
    b = (a + 1).clamp(max=last)
    alone = (b == a) | (d.document[b] != d.document[a])
    stranger = (torch.rand(n, generator=g, device=a.device) < 0.5) | alone
    other = torch.where(torch.rand(n, generator=g, device=a.device) < 0.5, _within(d, source, g), draw(d, n, g)[0])
    for _ in range(3):
        other = torch.where(d.document[other] == d.document[a], draw(d, n, g)[0], other)
    return a, torch.where(stranger, other, b), stranger.long()


def lay(
    d: Deck, a: torch.Tensor, b: torch.Tensor, length: int, spans: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, types), each (n, length) int64: [CLS] A [SEP] B [SEP] and padding.

    Where `spans` (n, bool) is false A and B are one sentence each, cut to the length; where true A reaches back and B
    on through their documents until the length is filled, as in the paper.
    """
    import torch

    room = length - 3
    a_end, b_start = d.sentence[a + 1], d.sentence[b]
    half = torch.full_like(a, room // 2)
    a_start = torch.maximum(torch.where(spans, d.span[d.document[a]], d.sentence[a]), a_end - half)
    a_len = a_end - a_start
    b_end = torch.where(spans, d.span[d.document[b] + 1], d.sentence[b + 1])
    b_len = torch.minimum(b_end - b_start, room - a_len)
    at = torch.arange(length, device=a.device)[None]
    a_len, b_len = a_len[:, None], b_len[:, None]
    in_a = (at >= 1) & (at <= a_len)
    in_b = (at >= a_len + 2) & (at < a_len + 2 + b_len)
    where = torch.where(in_a, a_start[:, None] + at - 1, b_start[:, None] + at - a_len - 2)
    ids = d.tokens[where.clamp(0, len(d.tokens) - 1)].long()
    mark = (at == a_len + 1) | (at == a_len + b_len + 2)
    ids = torch.where(in_a | in_b, ids, torch.where(mark, SEP, torch.where(at == 0, CLS, PAD)))
    types = ((at >= a_len + 2) & (at <= a_len + b_len + 2)).long()
    return ids, types


def mask(ids: torch.Tensor, vocabulary: int, g: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(masked ids (n, L), places (n, K), targets (n, K)); K is 15 % of L, and targets are -100 where a row has fewer.

    Of a row's ordinary tokens 15 % (rounded, at least one) are chosen: 80 % of these become [MASK], 10 % a random
    ordinary token, 10 % stay as they are.
    """
    import torch

    n, length = ids.shape
    ordinary = ids > MASK
    dart = torch.rand(n, length, generator=g, device=ids.device).masked_fill(~ordinary, 2.0)
    k = max(1, round(0.15 * length))
    places = dart.argsort(dim=1)[:, :k]
    count = (ordinary.sum(1) * 0.15).round().clamp(min=1)
    chosen = (torch.arange(k, device=ids.device)[None] < count[:, None]) & ordinary.gather(1, places)
    truth = ids.gather(1, places)
    how = torch.rand(n, k, generator=g, device=ids.device)
    word = torch.randint(MASK + 1, vocabulary, (n, k), generator=g, device=ids.device)
    put = torch.where(how < 0.8, MASK, torch.where(how < 0.9, word, truth))
    masked = ids.scatter(1, places, torch.where(chosen, put, truth))
    return masked, places, torch.where(chosen, truth, -100)
