"""Tokenizers of another kind than BERT's (RoBERTa's byte pairs, XLM-R's unigrams), through the package `tokenizers`.

The one door of that package on a device (extra `[tokenizers]`). A tokenizer answers as `WordPiece` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_agent.errors import ManifestError
from edge_agent.tasks.text.wordpiece import MASKS, WordPiece

KINDS = ("BPE", "Unigram")
BEGINS = ("\u0120", "\u2581")
"""what a piece begins with that begins a word: RoBERTa's sign of a space, and sentencepiece's"""
LETTERS = 100
"""characters of a text that are looked at for each piece that there is room for"""


class Subwords(WordPiece):
    """A tokenizer.json of KINDS."""

    by_letters = True

    def __init__(
        self, path: Path, data: bytes, table: dict[str, Any], marks: tuple[str | int, str | int, str | int]
    ) -> None:
        """`data` and `table`: the file `path`; `marks`: what stands first, last and in what is left empty.

        Raises ManifestError where the package is not here, or does not read the file.
        """
        try:
            from tokenizers import Tokenizer
        except ImportError:
            kind, mend = table["model"]["type"], 'pip install "edge-agent-runtime[tokenizers]"'
            raise ManifestError(f"{path}: model is {kind}, which needs the package tokenizers: {mend}") from None
        try:
            self._tokenizer = Tokenizer.from_str(data.decode())
        except Exception as error:  # the package raises nothing narrower
            raise ManifestError(f"{path}: the package tokenizers cannot read it: {error}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self.vocab: dict[str, int] = self._tokenizer.get_vocab()
        self.cls, self.sep, self.pad = (self._id(path, mark) for mark in marks)
        named = table["model"].get("unk_token") or table["model"].get("unk_id")
        self.unknown = self._id(path, named) if named is not None else self.pad
        self.highest = max(self.vocab.values())
        self._marks = {self.cls, self.sep, self.pad, *(self.vocab[name] for name in MASKS if name in self.vocab)}
        words = {i for piece, i in self.vocab.items() if piece.startswith(BEGINS)}
        self.inner = frozenset(self.vocab.values()) - words
        self.seps = _between(table.get("post_processor"))

    def _id(self, path: Path, mark: str | int) -> int:
        if isinstance(mark, int):
            return mark
        if mark not in self.vocab:
            raise ManifestError(f'{path}: no "{mark}" in it; give the tokenizer that belongs to the model')
        return self.vocab[mark]

    def encode(self, text: str, max_length: int) -> list[int]:
        """As of `WordPiece`."""
        return [self.cls, *(piece for piece, _, _ in self.pieces(text, max_length - 2)), self.sep]

    def pieces(self, text: str, most: int) -> list[tuple[int, int, int]]:
        """As of `WordPiece`; a piece's place is without the space before it."""
        found = self._tokenizer.encode(text[: most * LETTERS], add_special_tokens=False)
        placed = []
        for piece, (start, end) in zip(found.ids, found.offsets, strict=True):
            while start < end and text[start].isspace():
                start += 1
            # a mark that stands in the text is plain text, so that none can pretend to be two
            placed.append((self.unknown if piece in self._marks else piece, start, end))
        return placed[:most]

    def spelled(self) -> dict[int, str]:
        """Pieces that are words of their own, and how they are spelled."""
        begin = {i: piece for piece, i in self.vocab.items() if piece.startswith(BEGINS) and len(piece) > 1}
        return {i: word for i in begin if (word := self._tokenizer.decode([i]).strip())}


def _between(part: object) -> int:
    """How many separators stand between two texts."""
    if not isinstance(part, dict):
        return 1
    if part.get("type") == "RobertaProcessing":
        return 2
    names = [next(iter(one.items())) for one in part.get("pair") or () if isinstance(one, dict) and one]
    places = [n for n, (kind, _) in enumerate(names) if kind == "Sequence"]
    return max(1, places[1] - places[0] - 1) if len(places) == 2 else 1
