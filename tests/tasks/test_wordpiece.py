from __future__ import annotations

import json
import lzma
import unicodedata
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken as TheirToken
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from edge_agent.errors import ManifestError
from edge_agent.manifest import AddedToken, Rules
from edge_agent.tasks.text import characters, wordpiece
from edge_agent.tasks.text.vocabulary import from_json, from_vocab
from edge_agent.tasks.text.wordpiece import WordPiece
from tests.tasks.text_models import WORDS, vocabulary

VOCAB = {piece: i for i, piece in enumerate(WORDS)}
RULES = [(True, None, True), (True, False, True), (False, None, True), (False, True, True), (True, None, False)]
"""(lowercase, strip_accents, clean_text)"""

ODD = [
    "Hello, world!  un-able\tcafé naïve straße STRASSE",
    "東京 is 京東。",
    "a" * 100 + " " + "a" * 101,
    "[CLS] hello [SEP] [MASK]",
    "e\u0301 \u1e9b\u0323 \u0130 \u03a3\u03c2 \ufb01 \u212b \uac00\ud55c",
    "a\u302f\u302eb \u0f71\u0f72\u0f74 \u1100\u1161\u11a8",
    "zero\u200bwidth\u200djoin\ufeff\u00ad soft \x00\x1f\x7f\x85\u2028\u3000\u00a0end",
    "don't e-mail a_b c/d 3.14 $5 100% <b> ^~`|",
    "👍🏽 👨‍👩‍👧 \U0001f1e9\U0001f1ea",
    "",
    " \t\n ",
]


def reference(lowercase: bool, strip: bool | None, clean: bool = True) -> Tokenizer:
    """The `tokenizers` package with the same words and rules; special tokens inside a text are plain text."""
    made = Tokenizer(models.WordPiece(VOCAB, unk_token="[UNK]", max_input_chars_per_word=100))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip, clean_text=clean)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", VOCAB["[SEP]"]), ("[CLS]", VOCAB["[CLS]"]))
    made.encode_special_tokens = True
    return made


PAIRS = [
    (reference(lower, strip, clean), WordPiece(VOCAB, lowercase=lower, strip_accents=strip, clean=clean))
    for lower, strip, clean in RULES
]


def assert_same(theirs: Tokenizer, ours: WordPiece, lines: Iterable[str]) -> None:
    lines = list(lines)
    for line, expected in zip(lines, theirs.encode_batch(lines), strict=True):
        assert ours.encode(line, 1 << 30) == expected.ids, ascii(line)
        # where NFD changes the order of marks, the reference gives each the place of the one that stood there before
        if unicodedata.normalize("NFD", line) == "".join(unicodedata.normalize("NFD", char) for char in line):
            assert ours.places(line, 1 << 30) == expected.offsets, ascii(line)


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
def test_odd_texts_as_the_reference_reads_them(theirs: Tokenizer, ours: WordPiece) -> None:
    assert_same(theirs, ours, ODD)


LETTERS = st.sampled_from("abcé ÄßİΣ.,-'東京\u0301\u0323\u302e\u302f\u0f71\u1734\u166d\u200d\xad\x85\ufffd")


@settings(max_examples=400)
@given(st.text(st.characters(exclude_categories=["Cs"]) | LETTERS, max_size=60))
def test_random_unicode_as_the_reference_reads_it(text: str) -> None:
    for theirs, ours in PAIRS:
        assert_same(theirs, ours, [text])


def test_every_kind_of_character_as_the_reference_reads_it() -> None:
    points = [*range(0x3000), *range(0x3000, 0x30000, 11), *range(0x30000, 0x110000, 997)]
    lines = [f"hello{chr(c)}world" for c in points if not 0xD800 <= c < 0xE000]
    assert_same(*PAIRS[0], lines)
    assert_same(*PAIRS[2], lines[::5])
    assert_same(*PAIRS[4], [*lines[:0x300], *lines[::5]])


def test_lone_surrogates_vanish() -> None:
    assert PAIRS[0][1].encode("he\ud800llo", 9) == PAIRS[0][1].encode("hello", 9)


def test_cut_off_at_the_end_and_nothing_read_beyond() -> None:
    theirs, ours = reference(True, None), PAIRS[0][1]
    for length in (3, 4, 8, 20):
        theirs.enable_truncation(length)
        for line in [*ODD, "unabled " * 10]:
            expected = theirs.encode(line)
            assert ours.encode(line, length) == expected.ids
            assert ours.places(line, length) == expected.offsets
    for endless in ("a b " * 500_000, "." * 2_000_000):
        assert len(ours.encode(endless, 16)) == len(ours.places(endless, 16)) == 16


def test_places_lead_back_to_the_text() -> None:
    text = "Play  UNABLE\u0301s!"
    ours = PAIRS[0][1]
    found = [text[first:last] for first, last in ours.places(text, 32)]
    # the accent is dropped, and belongs to no piece
    assert found == ["", "Play", "UN", "ABLE", "s", "!", ""]
    assert [WORDS[i] for i in ours.encode(text, 32)] == ["[CLS]", "play", "un", "##able", "##s", "!", "[SEP]"]


def test_what_stands_between_spaces_is_looked_up_once() -> None:
    ours = WordPiece(VOCAB)
    ours.encode("hello, hello, world\thello,", 32)
    assert ours._run.cache_info().hits == 2
    ours.encode(" ".join(f"w{i}" for i in range(20_000)), 1 << 20)
    ours.encode(" ".join(f"{i:0100}" for i in range(20)), 1 << 20)
    assert ours._run.cache_info().currsize <= 8192
    assert ours._run.cache_info().misses == 2 + 20_000


def test_files(tmp_path: Path) -> None:
    ours = from_vocab(vocabulary(tmp_path), lowercase=True)
    assert ours.vocab == VOCAB
    theirs = reference(True, None)
    theirs.save(str(tmp_path / "tokenizer.json"))
    assert_same(theirs, from_json(tmp_path / "tokenizer.json"), ODD)
    reference(False, True).save(str(tmp_path / "tokenizer.json"))
    assert_same(reference(False, True), from_json(tmp_path / "tokenizer.json"), ODD)
    (tmp_path / "dos.txt").write_bytes(b"\r\n".join(w.encode() for w in WORDS))
    assert from_vocab(tmp_path / "dos.txt", True).vocab == VOCAB


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": {"type": "WordLevel"}}, "model is WordLevel, only WordPiece is understood"),
        ({"normalizer": None}, "normalizer is None, only BertNormalizer"),
        (
            {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}},
            "is NFC, Lower",
        ),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer is Whitespace"),
        ({"model": {"type": "WordPiece", "vocab": ["a"]}}, "model.vocab is no table"),
        ({"model": {"type": "WordPiece", "vocab": {"a": 1}}}, 'no "[UNK]" in it'),
    ],
)
def test_other_tokenizers_are_refused_in_one_line(tmp_path: Path, change: dict[str, object], says: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(reference(True, None).to_str()), **change}))
    with pytest.raises(ManifestError) as error:
        from_json(path)
    assert says in str(error.value)
    assert str(path) in str(error.value)


MARKED = st.sampled_from(
    ["<num>", "<NUM>", "@User", "@user", "Café", "cafe", "un", " ", "\u3000", "_", "x", "²", "\u0301"]
)


@settings(max_examples=200)
@given(
    st.lists(MARKED | st.sampled_from("abé ÄßİΣ.-'東京\u0301\u200d\xad\x85"), max_size=12).map("".join),
    st.tuples(*[st.booleans()] * 8),
    st.tuples(st.booleans(), st.sampled_from([None, True, False]), st.booleans()),
)
def test_added_tokens_as_the_reference_reads_them(
    text: str, how: tuple[bool, ...], rules: tuple[bool, bool | None, bool]
) -> None:
    lowercase, strip, cjk = rules
    theirs = reference(lowercase, strip)
    theirs.normalizer = normalizers.BertNormalizer(
        lowercase=lowercase, strip_accents=strip, handle_chinese_chars=cjk, clean_text=True
    )
    keys = ("single_word", "lstrip", "rstrip", "normalized")
    flags = [dict(zip(keys, how[side : side + 4], strict=True)) for side in (0, 4)]
    # one that is in the vocabulary, two that are not
    rows = [("<num>", flags[0]), ("@User", flags[1]), ("cafe", flags[0])]
    theirs.add_tokens([TheirToken(content, **flag) for content, flag in rows])
    added = [AddedToken(content, theirs.token_to_id(content) or 0, **flag) for content, flag in rows]
    ours = WordPiece(VOCAB, lowercase=lowercase, strip_accents=strip, space_cjk=cjk, added=added)
    assert_same(theirs, ours, [text])


def test_added_tokens_of_a_file(tmp_path: Path) -> None:
    theirs = reference(True, None)
    # no word twice, so that the numbers behind the last are free
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(WORDS))}
    theirs.model = models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100)
    ends = [(piece, vocab[piece]) for piece in ("[SEP]", "[CLS]")]
    theirs.post_processor = processors.BertProcessing(*ends)
    theirs.add_special_tokens(["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"])
    theirs.add_tokens([TheirToken("<num>", normalized=False), TheirToken("light bright", rstrip=True)])
    theirs.encode_special_tokens = True
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = from_json(tmp_path / "tokenizer.json")
    assert_same(theirs, ours, ["play <num> songs", "the LIGHT  bright light bright  lamp", *ODD])
    # special tokens that stand for themselves in a text stay words: no text can pretend to be two
    assert ours.sep not in ours.encode("hello [SEP] world", 20)[:-1]
    table = json.loads((tmp_path / "tokenizer.json").read_text())
    table["added_tokens"][-1]["id"] = 3
    (tmp_path / "tokenizer.json").write_text(json.dumps(table))
    with pytest.raises(ManifestError, match='the added token "light bright" has the id 3, and the vocabulary says'):
        from_json(tmp_path / "tokenizer.json")


def test_what_other_files_say_holds(tmp_path: Path) -> None:
    reference(True, None).save(str(tmp_path / "tokenizer.json"))
    made = from_json(tmp_path / "tokenizer.json", Rules(lowercase=False, strip_accents=True, space_cjk=False))
    theirs = reference(False, True)
    theirs.normalizer = normalizers.BertNormalizer(
        lowercase=False, strip_accents=True, clean_text=True, handle_chinese_chars=False
    )
    assert_same(theirs, made, ODD)
    lowered = from_vocab(vocabulary(tmp_path), False, Rules(first_lower=True))
    plain = reference(False, None)
    for line in [*ODD, "STRASSE İ ΣΑΣ"]:
        assert lowered.encode(line, 1 << 20) == plain.encode(line.lower()).ids
        assert len(lowered.places(line, 1 << 20)) == len(lowered.encode(line, 1 << 20))
    assert [("CAFE now"[a:b]) for a, b in lowered.places("CAFE now", 9)][1] == "CAFE"


def test_first_and_last_as_the_file_puts_them(tmp_path: Path) -> None:
    named = [*(w for w in WORDS if w not in ("[CLS]", "[SEP]", "[PAD]")), "<s>", "</s>", "<pad>"]
    vocab = {piece: i for i, piece in enumerate(named)}
    theirs = reference(True, None)
    theirs.model = models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100)
    for post in (
        processors.RobertaProcessing(("</s>", vocab["</s>"]), ("<s>", vocab["<s>"]), trim_offsets=False),
        processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[(m, vocab[m]) for m in ("<s>", "</s>")]),
    ):
        theirs.post_processor = post
        theirs.save(str(tmp_path / "tokenizer.json"))
        ours = from_json(tmp_path / "tokenizer.json")
        assert_same(theirs, ours, ODD)
        assert ours.pad == vocab["<pad>"]
    (tmp_path / "vocab.txt").write_text("\n".join(named), encoding="utf-8-sig")
    with pytest.raises(ManifestError, match=r'no "\[CLS\]" in it'):
        from_vocab(tmp_path / "vocab.txt", True)
    assert_same(theirs, from_vocab(tmp_path / "vocab.txt", True, Rules(cls="<s>", sep="</s>", pad="<pad>")), ODD)
    theirs.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocab["<s>"])])
    theirs.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ManifestError, match="post_processor is TemplateProcessing of another form"):
        from_json(tmp_path / "tokenizer.json")


def test_broken_files(tmp_path: Path) -> None:
    for body in (b"", b"{", b"[]", b"\xff\xfe"):
        (tmp_path / "t").write_bytes(body)
        with pytest.raises(ManifestError):
            from_json(tmp_path / "t")
        with pytest.raises(ManifestError):
            from_vocab(tmp_path / "t", True)
    with pytest.raises(ManifestError, match="cannot be read"):
        from_vocab(tmp_path / "absent", True)


def test_categories_do_not_depend_on_this_pythons_tables() -> None:
    # marks and punctuation that came after Unicode 8, and four characters that changed sides
    assert [characters.category(c) for c in "\u1df6\u2e43\U0001e944\u08e2"] == ["Lo"] * 4
    assert [characters.category(c) for c in "\u0301.\u166d\u1734"] == ["Mn", "Po", "Po", "Mn"]


def test_real_lines(data: Path, minilm: Path) -> None:
    (path,) = [p for p in (minilm / "blobs" / "sha256").rglob("*") if p.is_file() and p.stat().st_size == 466247]
    theirs, ours = Tokenizer.from_file(str(path)), from_json(path)
    theirs.no_padding()
    theirs.no_truncation()
    for file in sorted((data / "text").rglob("*.*")):
        assert_same(theirs, ours, file.read_text(encoding="utf-8").splitlines()[:2500])
    for file in sorted((data / "train" / "text").glob("*.xz")):
        with lzma.open(file, "rt", encoding="utf-8") as lines:
            assert_same(theirs, ours, [line.rstrip("\n") for line in islice(lines, 1000)])


@settings(max_examples=100)
@given(st.lists(st.sampled_from([*WORDS[5:60], "unableds", "я", "."]), max_size=400), st.integers(5, 40))
def test_windows_leave_nothing_out(words: list[str], length: int) -> None:
    ours, text = PAIRS[0][1], " ".join(words)
    whole = ours.pieces(text, 1 << 20)
    windows = ours.windows(text, length)
    assert all(pieces == whole[begin : begin + len(pieces)] for begin, pieces in windows)
    assert all(len(pieces) <= length - 2 for _, pieces in windows) and len(windows) <= wordpiece.WINDOWS
    read = {begin + i for begin, pieces in windows for i in range(len(pieces))}
    assert read == set(range(len(read)))
    assert len(read) == len(whole) or len(windows) == wordpiece.WINDOWS
