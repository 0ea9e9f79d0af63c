"""Tokenizers from files: vocab.txt and tokenizer.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edge_agent.errors import ManifestError
from edge_agent.files import read_regular
from edge_agent.manifest import MOST_PART, AddedToken, Rules
from edge_agent.tasks.text.subwords import KINDS, Subwords
from edge_agent.tasks.text.wordpiece import MAX_CHARS, WordPiece


def from_vocab(path: Path, lowercase: bool, rules: Rules | None = None, source: Path | None = None) -> WordPiece:
    """Read a vocab.txt: one piece a line, the line number is the id. Raises ManifestError.

    `rules`: what other files say; `source`: where the bytes of `path` are read.
    """
    rules = rules or Rules()
    try:
        # some editors begin a text with a byte order mark
        lines = _bytes(path, source, "vocabulary").decode("utf-8-sig").split("\n")
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
        marks=(*_ends(rules), rules.pad or "[PAD]"),
        first_lower=rules.first_lower,
        added=rules.added,
        where=str(path),
    )


def from_json(path: Path, rules: Rules | None = None, source: Path | None = None) -> WordPiece:
    """Read a tokenizer.json: a WordPiece model with BERT's rules, or, through the package `tokenizers`, another kind.

    `rules`: what other files say, which then holds; `source`: where the bytes of `path` are read. Raises ManifestError
    for what is neither, with that as the reason.
    """
    rules, data = rules or Rules(), _bytes(path, source, "tokenizer")
    try:
        table = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ManifestError(f"{path}: tokenizer cannot be read: {error}") from None
    kind = table.get("model") if isinstance(table, dict) else None
    if isinstance(kind, dict) and kind.get("type") in KINDS:
        return Subwords(path, data, table, _marks(path, table, {}, rules))
    model = _part(path, table, "model", "WordPiece")
    normal = _part(path, table, "normalizer", "BertNormalizer")
    _part(path, table, "pre_tokenizer", "BertPreTokenizer")
    vocab = _vocab(path, model)

    def said(own: bool | None, key: str) -> bool:
        return bool(normal.get(key, True)) if own is None else own

    return WordPiece(
        vocab,
        lowercase=said(rules.lowercase, "lowercase"),
        strip_accents=normal.get("strip_accents") if rules.strip_accents is None else rules.strip_accents,
        clean=said(None, "clean_text"),
        space_cjk=said(rules.space_cjk, "handle_chinese_chars"),
        prefix=str(model.get("continuing_subword_prefix", "##")),
        max_chars=int(model.get("max_input_chars_per_word", MAX_CHARS)),
        unknown=rules.unknown or str(model.get("unk_token", "[UNK]")),
        marks=_marks(path, table, vocab, rules),
        first_lower=rules.first_lower,
        added=list({token.content: token for token in (*_added(path, table, vocab), *rules.added)}.values()),
        where=str(path),
    )


def _bytes(path: Path, source: Path | None, what: str) -> bytes:
    """The bytes of a file, or of `source` in its place."""
    try:
        return read_regular(source or path, MOST_PART)
    except OSError as error:
        raise ManifestError(f"{path}: {what} cannot be read: {error.strerror}") from None


def _part(path: Path, table: Any, key: str, expected: str) -> dict[str, Any]:
    """One part of a tokenizer.json, a sequence of that alone looked through."""
    part = table.get(key) if isinstance(table, dict) else None
    rows = part.get(f"{key}s") if isinstance(part, dict) and part.get("type") == "Sequence" else None
    rows = rows if isinstance(rows, list) else [part]
    kinds = [row.get("type", expected) if isinstance(row, dict) else None for row in rows]
    if kinds != [expected]:
        found = ", ".join(map(str, kinds))
        raise ManifestError(f"{path}: {key} is {found}, only {expected} is understood; use a BERT model's tokenizer")
    return dict(rows[0])


def _vocab(path: Path, model: dict[str, Any]) -> dict[str, int]:
    """Piece -> id of a WordPiece model. ManifestError."""
    vocab = model.get("vocab")
    if not isinstance(vocab, dict) or not vocab or not all(isinstance(i, int) for i in vocab.values()):
        raise ManifestError(f"{path}: model.vocab is no table of pieces and numbers; fetch the file anew")
    return vocab


def _marks(
    path: Path, table: dict[str, Any], vocab: dict[str, int], rules: Rules
) -> tuple[str | int, str | int, str | int]:
    """What stands first, last and in what is left empty, as the post-processor puts it."""
    part, pad = table.get("post_processor"), _pad(table.get("padding"), vocab, rules)
    if part is None:
        return *_ends(rules), pad
    try:
        return (*_put(part), pad)
    except (LookupError, TypeError, ValueError):
        kind = part.get("type") if isinstance(part, dict) else part
    raise ManifestError(
        f"{path}: post_processor is {kind} of another form than one piece, the text, one piece; use a BERT model's "
        "tokenizer"
    )


def _pad(padding: Any, vocab: dict[str, int], rules: Rules) -> str | int:
    """What stands in what is left empty; `vocab`: empty for a tokenizer that is no WordPiece."""
    if isinstance(padding, dict) and isinstance(padding.get("pad_id"), int):
        return int(padding["pad_id"])
    names = [name for name in ("[PAD]", "<pad>") if name in vocab]
    return rules.pad or (names or ["[PAD]" if vocab else "<pad>"])[0]


def _ends(rules: Rules) -> tuple[str, str]:
    """What stands first and last where no post-processor says so."""
    return rules.cls or "[CLS]", rules.sep or "[SEP]"


def _put(part: dict[str, Any]) -> tuple[int, int]:
    """Ids of what a post-processor puts first and last. LookupError, TypeError or ValueError for another form."""
    if part["type"] in ("BertProcessing", "RobertaProcessing"):
        return int(part["cls"][1]), int(part["sep"][1])
    first, text, last = part["single"]
    if part["type"] != "TemplateProcessing" or text["Sequence"]["id"] != "A":
        raise ValueError
    (cls,), (sep,) = (part["special_tokens"][mark["SpecialToken"]["id"]]["ids"] for mark in (first, last))
    return int(cls), int(sep)


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
