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
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice

from edge_agent.errors import ManifestError
from edge_agent.manifest import AddedToken
from edge_agent.tasks.text.characters import CJK, LETTER, PUNCTUATION, SPACE, category, in_word, kind

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
MASKS = ("[MASK]", "<mask>")


class WordPiece:
    """A vocabulary and its rules."""

    by_letters, seps = False, 1  # whether words are told by letters that touch; separators between two texts

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
        _check(vocab, (unknown, *marks), where)
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
        self._look_for(added, {unknown, *MASKS, *(mark for mark in marks if isinstance(mark, str))})

    def _look_for(self, added: Sequence[AddedToken], plain: set[str]) -> None:
        """Take the added tokens, but for those that are plain text here."""
        ids = {self.unknown, self.cls, self.sep, self.pad}
        mine = [token for token in added if token.content not in plain and token.id not in ids]
        self._raw = _Added([(token.content, token) for token in mine if not token.normalized])
        self._normalized = _Added([(_joined(self._normal(t.content)), t) for t in mine if t.normalized])

    def encode(self, text: str, max_length: int) -> list[int]:
        """Ids of at most `max_length` pieces, [CLS] first and [SEP] last; what is too long is not even looked at."""
        text = text.lower() if self.first_lower else text
        ids = [self.cls]
        if self._raw or self._normalized:
            ids += [piece for piece, _, _ in islice(self._found(text), max_length)]
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
            for inner, start, end in self._normalized.split(_joined(shapes)):
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
        if self.clean and (char in "\t\n\r" or category(char)[0] == "Z"):
            return ((" ", SPACE, 0),)
        if self.clean and (char == "\ufffd" or category(char) in ("Cc", "Cf", "Co", "Cs")):
            return ()
        out = self._plain(char)
        if self.space_cjk and any(first <= ord(char) <= last for first, last in CJK):
            return ((" ", SPACE, 0), *out, (" ", SPACE, 0))
        return out

    def _plain(self, char: str) -> tuple[tuple[str, int, int], ...]:
        """The same of a character that is kept: without accents and capitals, where the model has none."""
        if self.strip_accents:
            return tuple(shape for part in unicodedata.normalize("NFD", char) for shape in self._stripped(part))
        return tuple((c, kind(c), 0) for c in (char.lower() if self.lowercase else char))

    def _stripped(self, part: str) -> list[tuple[str, int, int]]:
        """The same of one part of a character that was taken apart; accents vanish."""
        order = unicodedata.combining(part)
        if category(part) == "Mn":
            return [] if order else [("", LETTER, 0)]
        return [(c, kind(c), order) for c in (part.lower() if self.lowercase else part)]

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


def _check(vocab: dict[str, int], marks: tuple[str | int, ...], where: str) -> None:
    """ManifestError where a mark is no piece of the vocabulary."""
    for mark in marks:
        if isinstance(mark, str) and mark not in vocab:
            raise ManifestError(f'{where}: no "{mark}" in it; give the vocabulary that belongs to the model')


def _joined(shapes: Iterable[tuple[str, int, int]]) -> str:
    """The characters of what `_normal` gives."""
    return "".join(char for char, _, _ in shapes)


class _Added:
    """Tokens that are looked for in a text before it is split into words; False when there are none but empty ones."""

    def __init__(self, tokens: list[tuple[str, AddedToken]]):
        self.tokens = {content: token for content, token in tokens if content}
        # the leftmost, and of those that begin there the longest
        longest = sorted(self.tokens, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest))) if longest else None

    def __bool__(self) -> bool:
        return self.pattern is not None

    def split(self, text: str) -> Iterator[tuple[AddedToken | None, int, int]]:
        """(token, or None for what lies between two, start, end), in order, nothing left out."""
        done = 0
        for match in self.pattern.finditer(text) if self.pattern else ():
            token = self.tokens[match[0]]
            if token.single_word and _within_a_word(text, *match.span()):
                continue
            start, end = _with_spaces(text, token, *match.span(), done)
            if done < start:
                yield None, done, start
            yield token, max(start, done), end
            done = end
        if done < len(text):
            yield None, done, len(text)


def _within_a_word(text: str, start: int, end: int) -> bool:
    """Whether what stands before or behind goes on with a word."""
    return (start > 0 and in_word(text[start - 1])) or (end < len(text) and in_word(text[end]))


def _with_spaces(text: str, token: AddedToken, start: int, end: int, done: int) -> tuple[int, int]:
    """The place of a token with the spaces that belong to it, not before `done`."""
    while token.lstrip and start > done and BLANK.fullmatch(text[start - 1]):
        start -= 1
    spaces = BLANK.match(text, end) if token.rstrip else None
    return start, spaces.end() if spaces else end
