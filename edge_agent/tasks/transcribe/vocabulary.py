"""Whisper's tokens as text: byte pairs as GPT-2 writes them, one token a line of vocabulary.txt.

Each character of a token stands for one byte: those of Latin-1 that can be seen for themselves, the others, in their
order, for U+0100 and on (Radford et al. 2019, encoder.py of GPT-2).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.errors import ManifestError

SEEN = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
"""bytes that stand for themselves"""
HIDDEN = [byte for byte in range(256) if byte not in SEEN]
BYTES = {chr(byte): byte for byte in SEEN} | {chr(0x100 + at): byte for at, byte in enumerate(HIDDEN)}
"""character of a token -> byte"""
SPACE = "\u0120"
START, END, QUIET = "<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>"
TASK = "<|transcribe|>"
MOST_LANGUAGES = 200


@dataclass(slots=True)
class Vocabulary:
    """The tokens, the id of each being its place."""

    tokens: list[str]
    ids: dict[str, int] = field(init=False)
    """of the commands alone"""
    end: int = field(init=False)
    """the first of the commands; what is below it is said"""

    def __post_init__(self) -> None:
        self.ids = {token: at for at, token in enumerate(self.tokens) if token.startswith("<|")}
        missing = [name for name in (START, END, QUIET) if name not in self.ids]
        if missing:
            raise ManifestError(f"no {missing[0]} among its tokens; vocabulary.txt belongs to no Whisper")
        self.end = self.ids[END]

    @property
    def languages(self) -> list[str]:
        """ISO codes that the tokens name, in their order."""
        first = self.ids[START] + 1
        names = [token[2:-2] for token in self.tokens[first : first + MOST_LANGUAGES]]
        return names[: names.index(TASK[2:-2]) - 1] if TASK[2:-2] in names else []

    def text(self, ids: Iterable[int]) -> str:
        """What these tokens say, commands left out; bytes that are no UTF-8 become U+FFFD."""
        said = (self.tokens[at] for at in ids if 0 <= at < self.end)
        return bytes(BYTES[character] for token in said for character in token).decode("utf-8", "replace")

    def words(self, ids: Sequence[int]) -> list[range]:
        """The places in `ids` of the tokens of each word: one begins where a token begins with a space."""
        begins = [at for at, one in enumerate(ids) if at == 0 or self.tokens[one].startswith(SPACE)]
        return [range(at, end) for at, end in zip(begins, [*begins[1:], len(ids)], strict=True)]

    def line(self, ids: Iterable[int]) -> str:
        """As `text`, in one line, NFC, without spaces around it."""
        return unicodedata.normalize("NFC", " ".join(self.text(ids).split()))


def read(path: Path) -> Vocabulary:
    """The tokens of a vocabulary.txt. ManifestError for what is none."""
    try:
        tokens = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"vocabulary.txt cannot be read ({error})") from None
    vocabulary = Vocabulary(tokens[:-1] if tokens[-1] == "" else tokens)
    odd = [token for token in vocabulary.tokens[: vocabulary.end] if any(char not in BYTES for char in token)]
    if odd:
        raise ManifestError(f"{odd[0][:20]!r} among its tokens is no byte pair; vocabulary.txt belongs to no Whisper")
    return vocabulary
