"""Text to word pieces as BERT reads them, with the place of each piece in the text.

The rules are those of the reference implementation (Devlin et al. 2018, `tokenization.py`; the `tokenizers` package):
clean, space out CJK, NFD and strip accents, lower-case, split at spaces and punctuation, then the longest piece first.
Tokens that a model added (`<num>`, `@user`) are found first, by the rules of the `tokenizers` package. "[CLS]",
"[SEP]", "[PAD]", "[MASK]" and the unknown piece inside a text are plain text here, so that no text can pretend to be
two.
"""

from __future__ import annotations

import math
import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.errors import ManifestError
from edge_agent.files import read_regular
from edge_agent.manifest import MOST_PART, AddedToken, Rules

MAX_CHARS = 100
"""a longer word is unknown"""

RUN = re.compile(r"[^ \t\n\r]+")
"""what stands between two spaces: nothing in it depends on what is around it"""
WINDOWS = 16
"""most parts of a long text that are read"""
KEPT = 64
"""characters of a run, up to which its pieces are remembered"""
BLANK = re.compile(r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*")
"""Unicode's white space, which an added token may take with it"""
CIRCLED = ((0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189))
"""symbols that count as letters"""
MASKS = ("[MASK]", "<mask>")

CJK = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)
"""Ideographs, each a word of its own; 2B820 to 2B91F are left out by the reference too."""

# The reference knows the categories of Unicode 8. What has become a mark, punctuation or a control since then is a
# letter to it, whatever this Python's tables say; four characters have changed sides.
LATE = """
5C8-5C9 61D 7FD 890-89F 8CA-8E2 9FD-9FE A76 AFA-AFF B53-B55 C04 C3C C77 C84 D00 D3B-D3C D81 EBA ECE 180F 1885-1886
1ABF-1AF0 1B4E-1B4F 1B7D-1B7F 1DF6-1DFB 2E43-2E63 A82C A8C5 A8FF A9BD 10D24-10D27 10D69-10D6E 10EAB-10EFF
10F46-10F59 10F82-10F89 11070-11074 110C2-110CD 111CF 1123E-11241 1133B 113BB-113E2 11438-1145E 11660-1166C 116B9
1182F-1183B 1193B-11946 119D4-11A0A 11A33-11A5B 11A8A-11AA2 11B00-11B09 11B60-11B66 11BE1 11C30-11C45 11C70-11CB6
11D31-11D47 11D90-11D97 11DF0 11EF3-11F01 11F36-11F5A 11FFF 12FF1-12FF2 13430-13455 1611E-1612F 16D6D-16D6F
16E97-16E9A 16F4F 16FE2-16FE4 1CF00-1CF46 1D127-1D128 1D25B-1D25C 1E000-1E02A 1E08F 1E130-1E136 1E2AE 1E2EC-1E2EF
1E4EC-1E4EF 1E5EE-1E5FF 1E6E3-1E6F5 1E944-1E95F
"""
EARLY = {"\u166d": "Po", "\U000111c9": "Po", "\u1734": "Mn", "\U0001171e": "Mn"}

LETTER, PUNCTUATION, SPACE = 0, 1, 2


def _ranges(text: str) -> frozenset[int]:
    """``"5C8-5C9 7FD"`` as code points."""
    spans = [part.split("-") for part in text.split()]
    return frozenset(c for span in spans for c in range(int(span[0], 16), int(span[-1], 16) + 1))


_LATE = _ranges(LATE)


def category(char: str) -> str:
    """Unicode's general category as the reference sees it; late comers are "Lo"."""
    if char in EARLY:
        return EARLY[char]
    return "Lo" if ord(char) in _LATE else unicodedata.category(char)


def kind(char: str) -> int:
    """LETTER, PUNCTUATION (all ASCII symbols too, as in the reference) or SPACE."""
    # those behind the first four are controls, which a source has made spaces of
    if char in " \t\n\r\x0b\x0c\x85":
        return SPACE
    if char.isascii():
        return PUNCTUATION if char.isprintable() and not char.isalnum() else LETTER
    major = category(char)[0]
    return SPACE if major == "Z" else PUNCTUATION if major == "P" else LETTER


def in_word(char: str) -> bool:
    """Whether a character belongs to a word, as `\\w` of Unicode's regular expressions has it."""
    if unicodedata.category(char) in ("Lu", "Ll", "Lt", "Lm", "Lo", "Nd", "Nl", "Mn", "Mc", "Me", "Pc"):
        return True
    return char in "\u200c\u200d" or any(first <= ord(char) <= last for first, last in CIRCLED)


class WordPiece:
    """A vocabulary and its rules."""

    def __init__(
        self,
        vocab: dict[str, int],
        *,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        clean: bool = True,
        space_cjk: bool = True,
        prefix: str = "##",
        max_chars: int = MAX_CHARS,
        unknown: str = "[UNK]",
        marks: tuple[str | int, str | int, str | int] = ("[CLS]", "[SEP]", "[PAD]"),
        first_lower: bool = False,
        added: Sequence[AddedToken] = (),
        where: str = "vocabulary",
    ):
        """`vocab`: piece -> id; `marks`: piece or id of what stands first, last and in what is left empty.

        `first_lower`: the whole text is lower-cased before anything else. Raises ManifestError where the vocabulary has
        no such piece.
        """
        for piece in (unknown, *marks):
            if isinstance(piece, str) and piece not in vocab:
                raise ManifestError(f'{where}: no "{piece}" in it; give the vocabulary that belongs to the model')
        self.vocab = vocab
        self.unknown = vocab[unknown]
        self.cls, self.sep, self.pad = (vocab[mark] if isinstance(mark, str) else mark for mark in marks)
        self.lowercase, self.first_lower = lowercase, first_lower
        self.strip_accents = lowercase if strip_accents is None else strip_accents
        self.clean, self.space_cjk, self.prefix, self.max_chars = clean, space_cjk, prefix, max_chars
        self.longest = max(map(len, vocab))
        self.inner = frozenset(i for piece, i in vocab.items() if piece.startswith(prefix) and piece != prefix)
        self.highest = max(*vocab.values(), self.cls, self.sep, self.pad, *(token.id for token in added))
        # hostile text can hold any number of different characters and words
        self._shape = lru_cache(maxsize=4096)(self._shape_of)
        self._pieces = lru_cache(maxsize=8192)(self._pieces_of)
        self._run = lru_cache(maxsize=8192)(self._run_of)
        kept = {unknown, *MASKS, *(mark for mark in marks if isinstance(mark, str))}
        ids = {self.unknown, self.cls, self.sep, self.pad}
        mine = [token for token in added if token.content and token.content not in kept and token.id not in ids]
        self._raw = _Added([(token.content, token) for token in mine if not token.normalized])
        normal = [("".join(c for c, _, _ in self._normal(t.content)), t) for t in mine if t.normalized]
        self._normalized = _Added([(content, token) for content, token in normal if content])

    def encode(self, text: str, max_length: int) -> list[int]:
        """Ids of at most `max_length` pieces, [CLS] first and [SEP] last; what is too long is not even looked at."""
        text = text.lower() if self.first_lower else text
        ids = [self.cls]
        if self._raw or self._normalized:
            for piece, _, _ in self._found(text):
                ids.append(piece)
                if len(ids) >= max_length:
                    break
            return [*ids[: max_length - 1], self.sep]
        for match in RUN.finditer(text):
            run = match[0]
            ids += self._run(run) if len(run) <= KEPT else self._run_of(run, max_length)
            if len(ids) >= max_length:
                break
        return [*ids[: max_length - 1], self.sep]

    def places(self, text: str, max_length: int) -> list[tuple[int, int]]:
        """For each piece of `encode` its start and end in `text`, characters, end exclusive; (0, 0) for the two."""
        return [(0, 0), *((start, end) for _, start, end in self.pieces(text, max_length - 2)), (0, 0)]

    def pieces(self, text: str, most: int) -> list[tuple[int, int, int]]:
        """(id, start, end in `text`) of the first `most` pieces, without those that stand first and last."""
        if not self.first_lower:
            return list(islice(self._found(text), most))
        # a capital sigma becomes another letter at the end of a word, so the whole text is lower-cased at once
        origin = [at for at, char in enumerate(text) for _ in char.lower()]
        found = islice(self._found(text.lower()), most)
        return [(piece, origin[start], origin[end - 1] + 1) for piece, start, end in found]

    def windows(self, text: str, max_length: int) -> list[tuple[int, list[tuple[int, int, int]]]]:
        """A text as windows of at most `max_length` pieces with room for the two marks: where each begins in all of
        them, and its pieces.

        A text that fits is one window. Of a longer one each window shares a quarter with the next and begins with a
        word where it can; what lies behind the first `WINDOWS` is left out.
        """
        room = max_length - 2
        overlap = room // 4
        found = self.pieces(text, room + (WINDOWS - 1) * (room - overlap))
        if len(found) <= room:
            return [(0, found)]
        count = math.ceil((len(found) - overlap) / (room - overlap))
        begins = []
        for number in range(count):
            begin = number * (len(found) - room) // (count - 1)
            word = next(
                (at for at in range(begin, max(begin - overlap, 0), -1) if found[at][0] not in self.inner), begin
            )
            begins.append(word if number < count - 1 else begin)
        return [(begin, found[begin : begin + room]) for begin in begins]

    def unread(self, text: str, pieces: Sequence[tuple[int, int, int]]) -> bool:
        """Whether more of a text's letters lie in unknown words than in known ones: nothing can be said of it."""
        lost = read = 0
        for piece, start, end in pieces:
            if piece == self.unknown:
                lost += end - start
            elif kind(text[start]) != PUNCTUATION:
                read += end - start
        return lost > read

    def _found(self, text: str) -> Iterator[tuple[int, int, int]]:
        """(id, start, end in `text`) of each piece, added tokens among them."""
        for token, first, last in self._raw.split(text):
            if token is not None:
                yield token.id, first, last
                continue
            if not self._normalized:
                for word, origin in self._words(self._normal(text[first:last])):
                    for piece, start, end in self._pieces(word):
                        yield piece, first + origin[start], first + origin[end - 1] + 1
                continue
            shapes = list(self._normal(text[first:last]))
            for inner, start, end in self._normalized.split("".join(c for c, _, _ in shapes)):
                if inner is not None:
                    yield inner.id, first + shapes[start][2], first + shapes[end - 1][2] + 1
                    continue
                for word, origin in self._words(iter(shapes[start:end])):
                    for piece, a, b in self._pieces(word):
                        yield piece, first + origin[a], first + origin[b - 1] + 1

    def _run_of(self, run: str, most: int = sys.maxsize) -> list[int]:
        """Ids of a run; of the first `most` pieces or a few more."""
        ids: list[int] = []
        for word, _ in self._words(self._normal(run)):
            ids += [piece for piece, _, _ in self._pieces(word)]
            if len(ids) >= most:
                break
        return ids

    @staticmethod
    def _words(normal: Iterator[tuple[str, int, int]]) -> Iterator[tuple[str, list[int]]]:
        """Each word or mark of what `_normal` gives, and for each of its characters the index that it came from."""
        word: list[str] = []
        origin: list[int] = []
        for char, what, at in normal:
            if what == LETTER:
                word.append(char)
                origin.append(at)
                continue
            if word:
                yield "".join(word), origin
                word, origin = [], []
            if what == PUNCTUATION:
                yield char, [at]
        if word:
            yield "".join(word), origin

    def _normal(self, text: str) -> Iterator[tuple[str, int, int]]:
        """(character, kind, index in `text`), normalised; combining marks in canonical order (UAX #15)."""
        marks: list[tuple[int, str, int, int]] = []
        for at, char in enumerate(text):
            for out, what, order in self._shape(char):
                if order:
                    marks.append((order, out, what, at))
                    continue
                if marks:
                    yield from ((o, w, a) for _, o, w, a in sorted(marks, key=lambda mark: mark[0]))
                    marks = []
                if out:
                    yield out, what, at
        yield from ((o, w, a) for _, o, w, a in sorted(marks, key=lambda mark: mark[0]))

    def _shape_of(self, char: str) -> tuple[tuple[str, int, int], ...]:
        """What one character becomes: (character or "" for a mark that vanishes, kind, combining class to sort by)."""
        if self.clean:
            if char in "\t\n\r" or category(char)[0] == "Z":
                return ((" ", SPACE, 0),)
            if char == "\ufffd" or category(char) in ("Cc", "Cf", "Co", "Cs"):
                return ()
        out: list[tuple[str, int, int]] = []
        for part in unicodedata.normalize("NFD", char) if self.strip_accents else char:
            order = unicodedata.combining(part) if self.strip_accents else 0
            if self.strip_accents and category(part) == "Mn":
                if not order:
                    out.append(("", LETTER, 0))
                continue
            out += [(c, kind(c), order) for c in (part.lower() if self.lowercase else part)]
        if self.space_cjk and any(first <= ord(char) <= last for first, last in CJK):
            return ((" ", SPACE, 0), *out, (" ", SPACE, 0))
        return tuple(out)

    def _pieces_of(self, word: str) -> tuple[tuple[int, int, int], ...]:
        """(id, first, last + 1 character in the word) of each piece, the longest that fits first."""
        size = len(word)
        if size > self.max_chars:
            return ((self.unknown, 0, size),)
        out, first = [], 0
        while first < size:
            for last in range(min(size, first + self.longest), first, -1):
                piece = self.vocab.get(word[first:last] if first == 0 else self.prefix + word[first:last])
                if piece is not None:
                    break
            else:
                return ((self.unknown, 0, size),)
            out.append((piece, first, last))
            first = last
        return tuple(out)


class _Added:
    """Tokens that are looked for in a text before it is split into words; False when there are none."""

    def __init__(self, tokens: list[tuple[str, AddedToken]]):
        self.tokens = dict(tokens)
        # the leftmost, and of those that begin there the longest
        longest = sorted(self.tokens, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest))) if longest else None

    def __bool__(self) -> bool:
        return self.pattern is not None

    def split(self, text: str) -> Iterator[tuple[AddedToken | None, int, int]]:
        """(token, or None for what lies between two, start, end), in order, nothing left out."""
        done = 0
        for match in self.pattern.finditer(text) if self.pattern else ():
            start, end = match.span()
            token = self.tokens[match[0]]
            if token.single_word and ((start and in_word(text[start - 1])) or (text[end:] and in_word(text[end]))):
                continue
            if token.lstrip:
                while start > done and BLANK.fullmatch(text[start - 1]):
                    start -= 1
            if token.rstrip:
                spaces = BLANK.match(text, end)
                end = spaces.end() if spaces else end
            if done < start:
                yield None, done, start
            yield token, max(start, done), end
            done = end
        if done < len(text):
            yield None, done, len(text)


# ── from files ───────────────────────────────────────────────────────────────────────────────────────────


def from_vocab(path: Path, lowercase: bool, rules: Rules | None = None, source: Path | None = None) -> WordPiece:
    """Read a vocab.txt: one piece a line, the line number is the id. Raises ManifestError.

    `rules`: what other files say; `source`: where the bytes of `path` are read.
    """
    rules = rules or Rules()
    try:
        # some editors begin a text with a byte order mark
        lines = read_regular(source or path, MOST_PART).decode("utf-8-sig").split("\n")
    except OSError as error:
        raise ManifestError(f"{path}: vocabulary cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: vocabulary cannot be read: {error}") from None
    vocab = {line.rstrip("\r"): i for i, line in enumerate(lines) if line.rstrip("\r")}
    if not vocab:
        raise ManifestError(f"{path}: no word piece in it; give the vocabulary that belongs to the model")
    return WordPiece(
        vocab,
        lowercase=lowercase if rules.lowercase is None else rules.lowercase,
        strip_accents=rules.strip_accents,
        space_cjk=rules.space_cjk is not False,
        unknown=rules.unknown or "[UNK]",
        marks=(rules.cls or "[CLS]", rules.sep or "[SEP]", rules.pad or "[PAD]"),
        first_lower=rules.first_lower,
        added=rules.added,
        where=str(path),
    )


def from_json(path: Path, rules: Rules | None = None, source: Path | None = None) -> WordPiece:
    """Read a tokenizer.json with a WordPiece model and BERT's rules.

    `rules`: what other files say, which then holds; `source`: where the bytes of `path` are read. Raises ManifestError
    for another kind of tokenizer, with that as the reason.
    """
    rules = rules or Rules()
    try:
        table = msgspec.json.decode(read_regular(source or path, MOST_PART))
    except OSError as error:
        raise ManifestError(f"{path}: tokenizer cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise ManifestError(f"{path}: tokenizer cannot be read: {error}") from None
    model = _part(path, table, "model", "WordPiece")
    normal = _part(path, table, "normalizer", "BertNormalizer")
    _part(path, table, "pre_tokenizer", "BertPreTokenizer")
    vocab = model.get("vocab")
    if not isinstance(vocab, dict) or not vocab or not all(isinstance(i, int) for i in vocab.values()):
        raise ManifestError(f"{path}: model.vocab is no table of pieces and numbers; fetch the file anew")
    lowercase = bool(normal.get("lowercase", True)) if rules.lowercase is None else rules.lowercase
    strip = normal.get("strip_accents") if rules.strip_accents is None else rules.strip_accents
    spaced = bool(normal.get("handle_chinese_chars", True)) if rules.space_cjk is None else rules.space_cjk
    return WordPiece(
        vocab,
        lowercase=lowercase,
        strip_accents=strip,
        clean=bool(normal.get("clean_text", True)),
        space_cjk=spaced,
        prefix=str(model.get("continuing_subword_prefix", "##")),
        max_chars=int(model.get("max_input_chars_per_word", MAX_CHARS)),
        unknown=rules.unknown or str(model.get("unk_token", "[UNK]")),
        marks=_marks(path, table, vocab, rules),
        first_lower=rules.first_lower,
        added=list({token.content: token for token in (*_added(path, table, vocab), *rules.added)}.values()),
        where=str(path),
    )


def _part(path: Path, table: Any, key: str, expected: str) -> dict[str, Any]:
    """One part of a tokenizer.json, a sequence of that alone looked through."""
    part = table.get(key) if isinstance(table, dict) else None
    rows = part.get(f"{key}s") if isinstance(part, dict) and part.get("type") == "Sequence" else None
    if isinstance(rows, list) and len(rows) == 1:
        part = rows[0]
    elif isinstance(rows, list):
        kinds = ", ".join(str(row.get("type")) if isinstance(row, dict) else "?" for row in rows)
        raise ManifestError(f"{path}: {key} is {kinds}; only {expected} is understood; use a BERT model's tokenizer")
    found = part.get("type", expected) if isinstance(part, dict) else None
    if not isinstance(part, dict) or found != expected:
        raise ManifestError(f"{path}: {key} is {found}, only {expected} is understood; use a BERT model's tokenizer")
    return part


def _marks(
    path: Path, table: dict[str, Any], vocab: dict[str, int], rules: Rules
) -> tuple[str | int, str | int, str | int]:
    """What stands first, last and in what is left empty, as the post-processor puts it."""
    part, padding = table.get("post_processor"), table.get("padding")
    pad: str | int = rules.pad or next((name for name in ("[PAD]", "<pad>") if name in vocab), "[PAD]")
    if isinstance(padding, dict) and isinstance(padding.get("pad_id"), int):
        pad = padding["pad_id"]
    if part is None:
        return rules.cls or "[CLS]", rules.sep or "[SEP]", pad
    try:
        if part["type"] in ("BertProcessing", "RobertaProcessing"):
            return int(part["cls"][1]), int(part["sep"][1]), pad
        if part["type"] == "TemplateProcessing":
            first, text, last = part["single"]
            if text["Sequence"]["id"] == "A":
                ids = [part["special_tokens"][mark["SpecialToken"]["id"]]["ids"] for mark in (first, last)]
                (cls,), (sep,) = ids
                return int(cls), int(sep), pad
    except (LookupError, TypeError, ValueError):
        pass
    kind = part.get("type") if isinstance(part, dict) else part
    raise ManifestError(
        f"{path}: post_processor is {kind} of another form than one piece, the text, one piece; use a BERT model's "
        "tokenizer"
    )


def _added(path: Path, table: dict[str, Any], vocab: dict[str, int]) -> list[AddedToken]:
    """The added tokens of a tokenizer.json; ManifestError where one has another number than its vocabulary says."""
    rows = table.get("added_tokens") or []
    try:
        plain = [{key: row[key] for key in AddedToken.__struct_fields__ if key in row} for row in rows]
        found = msgspec.convert(plain, list[AddedToken])
    except (msgspec.ValidationError, TypeError) as error:
        raise ManifestError(f"{path}: added_tokens: {error}; fetch the file anew") from None
    pieces = {number: piece for piece, number in vocab.items()}
    for token in found:
        if vocab.get(token.content, token.id) != token.id or pieces.get(token.id, token.content) != token.content:
            raise ManifestError(
                f'{path}: the added token "{token.content}" has the id {token.id}, and the vocabulary says another one'
            )
    return found
