"""What the files beside a text network say of its tokenizer and its longest text; each setting is honoured or refused.

Which file holds where two differ is as in the programs that such folders are made for. transformers: a BERT tokenizer's
tokenizer_config.json holds over tokenizer.json. sentence-transformers: max_seq_length, else the lesser of
max_position_embeddings and model_max_length.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.graphs.graph import MAX_WORDS
from edge_agent.manifest import LENGTHS, AddedToken, Rules

FEW = 0.01
"""share of word pieces with a capital, up to which they are strays in a vocabulary without"""
SENTENCE = tuple(f"sentence_{name}_config.json" for name in ("bert", "distilbert", "albert", "roberta", "xlm-roberta"))
"""names of sentence-transformers' file, which has one of them"""
BESIDE = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
    "config_sentence_transformers.json",
    *SENTENCE,
)
"""JSON files that are looked at"""
BERTS = ("bert", "distilbert", "electra", "mobilebert", "convbert", "squeezebert", "layoutlm", "lxmert", "mpnet")
"""kinds of models whose tokenizer is BERT's; the class is called like them, whatever its capitals"""
PLAIN = ("pretrainedtokenizer", "tokenizersbackend", "")
"""a class of this name takes tokenizer.json as it is"""
ENDLESS = 10**6
"""tokens from which on a length says that there is none"""
MARKS = {
    "unk_token": ("unknown", "[UNK]"),
    "cls_token": ("cls", "[CLS]"),
    "sep_token": ("sep", "[SEP]"),
    "pad_token": ("pad", "[PAD]"),
}
"""key of the JSON files -> that of `Rules`, and BERT's own name"""


Tables = Mapping[str, dict[str, Any]]
"""file name -> what stands in it, {} where it is not there"""


@dataclass(slots=True)
class Tokens:
    """What was found."""

    part: str = ""
    """file of the word pieces beside the network; "" for none"""
    role: str = ""
    lowercase: bool = True
    rules: Rules | None = None
    length: int | None = None
    """most tokens of a text; None where nothing says"""
    reasons: list[str] = field(default_factory=list)
    why_length: str = ""
    refusal: str = ""
    """why these settings cannot be served; "" when they can"""


def tokens(path: Path) -> Tokens:
    """Look at the files beside a text network. Nothing is raised: what cannot be served stands in `refusal`."""
    found = Tokens()
    found.part = next((n for n in ("tokenizer.json", "vocab.txt") if path.with_name(n).is_file()), "")
    if not found.part:
        found.refusal = _no_words(path)
        return found
    tables: dict[str, dict[str, Any]] = {}
    for name in BESIDE:
        table = _table(path.with_name(name))
        if isinstance(table, str):
            found.refusal = f"{name} beside it {table}; fetch it anew, or take it away"
            return found
        tables[name] = table
    found.role = "tokenizer" if found.part == "tokenizer.json" else "vocab"
    found.reasons.append(f"{found.role}: {found.part} beside the file")
    return _settings(found, path, tables)


def _settings(found: Tokens, path: Path, tables: Tables) -> Tokens:
    """The same with the rules and the length that the JSON files state."""
    sentence = next((tables[name] for name in SENTENCE if tables[name]), {})
    try:
        found.refusal = _unserved(found.part, tables)
        rules = _rules(found, path, tables, sentence)
        found.length, found.why_length = _length(tables, sentence)
    except (msgspec.ValidationError, LookupError, AttributeError, TypeError) as error:
        found.refusal = f"its tokenizer's settings cannot be read ({error}); fetch its .json files anew"
        return found
    found.rules = rules if rules != Rules() else None
    if tables["tokenizer_config.json"] or found.rules:
        found.reasons.append(f"its other files say: {_said(rules) or 'nothing else'}")
    return found


def _said(rules: Rules) -> str:
    """The rules that are not BERT's own, in words."""
    said = [f"{key} {value}" for key, value in msgspec.to_builtins(rules).items() if value not in (None, False, [])]
    said += [f"{key} False" for key in ("strip_accents", "space_cjk", "lowercase") if getattr(rules, key) is False]
    return ", ".join(said)


def _no_words(path: Path) -> str:
    """Why there are no word pieces beside it, in words that name what lies there instead."""
    others = ("sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "vocab.json", "merges.txt")
    for name in others:
        if path.with_name(name).is_file():
            return f"{name} beside it is of another tokenizer than BERT's, which is not served; use a BERT model"
    return "no tokenizer.json or vocab.txt beside it; put it there"


def _table(path: Path) -> dict[str, Any] | str:
    """A JSON file's table, {} where it is not there; why it is none, as a text."""
    try:
        if not path.is_file():
            return {}
        if path.stat().st_size > 4 * MAX_WORDS:
            return "is larger than 4 MB"
        read = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return "is no JSON"
    return read if isinstance(read, dict) else "is no table of JSON"


def _kind(tables: Tables) -> str:
    """The tokenizer's class in small letters without Tokenizer and Fast, or the model's type; "" where nothing says."""
    given = str(tables["tokenizer_config.json"].get("tokenizer_class") or "").lower().removesuffix("fast")
    if given in PLAIN:
        return given or str(tables["config.json"].get("model_type") or "").lower()
    return given.removesuffix("tokenizer")


def _unserved(part: str, tables: Tables) -> str:
    """The first setting that is not served; "" when there is none."""
    config, kind = tables["tokenizer_config.json"], _kind(tables)
    marks = (*MARKS, "mask_token")
    specials = {_content(config.get(key) or tables["special_tokens_map.json"].get(key)) for key in marks}
    prompt = tables["config_sentence_transformers.json"].get("default_prompt_name")
    named = config.get("tokenizer_class")
    puzzles = (
        (
            part == "vocab.txt" and named and kind not in (*BERTS, *PLAIN),
            f"its tokenizer_class is {named}, which is not served; use a BERT model",
        ),
        (
            config.get("do_basic_tokenize") is False,
            "do_basic_tokenize is false in tokenizer_config.json: text that is split at spaces alone is not served",
        ),
        (
            set(config.get("never_split") or ()) - specials,
            "never_split in tokenizer_config.json names words, which is not served; make them added tokens",
        ),
        (
            str(config.get("truncation_side", "right")) != "right",
            "truncation_side in tokenizer_config.json is left: a text that loses its beginning is not served",
        ),
        (config.get("split_special_tokens"), "split_special_tokens in tokenizer_config.json is not served"),
        (
            prompt,
            f'config_sentence_transformers.json puts the prompt "{prompt}" before each text, which is not served',
        ),
    )
    return next((why for holds, why in puzzles if holds), "")


def _rules(found: Tokens, path: Path, tables: Tables, sentence: dict[str, Any]) -> Rules:
    """What differs from BERT's own way; notes in `found` whether text is lower-cased."""
    config, kind = tables["tokenizer_config.json"], _kind(tables)
    given: dict[str, Any] = {"first_lower": sentence.get("do_lower_case") is True}
    vocab = found.role == "vocab"
    if vocab:
        found.lowercase, why = _lowercase(path.with_name(found.part), config.get("do_lower_case"))
        found.reasons.append(f"lowercase {str(found.lowercase).lower()}: {why}")
    named = "tokenizer_class" in config and kind in BERTS
    if vocab:
        given |= _cleaning(config, found.lowercase)
    elif named:
        given |= _cleaning({**BERT_CLEANS, **config}, None)
    # a class that takes tokenizer.json as it is looks at none of these
    elif config and kind not in PLAIN[:2]:
        given |= _cleaning(config, None)
    # what stands first and last a tokenizer.json says itself
    given |= _special(tables, tuple(MARKS) if vocab else ("pad_token", "unk_token") if named else ("pad_token",))
    return msgspec.convert(given, Rules, from_attributes=True)


def _special(tables: Tables, kept: tuple[str, ...]) -> dict[str, Any]:
    """Names of special tokens that are not BERT's, of the keys in `kept`, and tokens that were added."""
    config, other = tables["tokenizer_config.json"], tables["special_tokens_map.json"]
    names = {key: _content(config.get(key)) or _content(other.get(key)) for key in MARKS}
    given: dict[str, Any] = {MARKS[key][0]: names[key] for key in kept if names[key] not in (None, "", MARKS[key][1])}
    plain = {*names.values(), *(name for _, name in MARKS.values()), "[MASK]", "<mask>"}
    given["added"] = [token for token in _added(tables) if token.content not in plain]
    return given


BERT_CLEANS = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}
"""what a BERT tokenizer does where its tokenizer_config.json does not say"""


def _cleaning(config: Mapping[str, Any], lowercase: bool | None) -> dict[str, Any]:
    """How a text is cleaned, as far as `config` says; `lowercase` is what a vocabulary says, which holds over it."""
    given: dict[str, Any] = {}
    if lowercase is None and "do_lower_case" in config:
        lowercase = given["lowercase"] = bool(config["do_lower_case"])
    if "strip_accents" in config:
        strip = config["strip_accents"]
        given["strip_accents"] = lowercase if strip is None else bool(strip)
    if "tokenize_chinese_chars" in config:
        given["space_cjk"] = bool(config["tokenize_chinese_chars"])
    return given


def _content(given: object) -> str | None:
    """The text of a token that is written as a text or as a table."""
    if isinstance(given, dict):
        given = given.get("content")
    return given if isinstance(given, str) else None


def _added(tables: Tables) -> list[AddedToken]:
    """Added tokens of tokenizer_config.json's added_tokens_decoder, or of added_tokens.json."""
    rows: dict[str, dict[str, Any]] = {}
    for content, number in tables["added_tokens.json"].items():
        rows[content] = {"content": content, "id": number}
    for number, row in (tables["tokenizer_config.json"].get("added_tokens_decoder") or {}).items():
        keys = [key for key in AddedToken.__struct_fields__ if key in row]
        rows[row["content"]] = {**{key: row[key] for key in keys}, "id": number}
    return msgspec.convert(list(rows.values()), list[AddedToken], strict=False)


def _length(tables: Tables, sentence: dict[str, Any]) -> tuple[int | None, str]:
    """Most tokens of a text and which file says so; what tokenizer.json cuts at both programs pass over."""
    stated = _number(sentence.get("max_seq_length"))
    if stated:
        return stated, "max_seq_length in the file of sentence-transformers"
    rows = [
        (_number(tables["tokenizer_config.json"].get("model_max_length")), "model_max_length in tokenizer_config.json"),
        (_number(tables["config.json"].get("max_position_embeddings")), "max_position_embeddings in config.json"),
    ]
    known = [(number, why) for number, why in rows if number]
    return min(known) if known else (None, "")


def _number(given: object) -> int | None:
    """A length of a text; None for what says that there is none."""
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < ENDLESS:
        return None
    return min(int(given), LENGTHS[1])


def _lowercase(vocab: Path, given: object) -> tuple[bool, str]:
    """Whether text is lower-cased, as tokenizer_config.json beside the vocabulary says or its pieces; and why."""
    if isinstance(given, bool):
        return given, "tokenizer_config.json beside the file says so"
    try:
        with vocab.open(encoding="utf-8-sig", errors="replace") as file:
            lines = file.read(4 * MAX_WORDS).splitlines()
    except OSError:
        return True, "its word pieces cannot be read"
    # marks such as [CLS] or <URL> are written large in any vocabulary
    words = [line for line in lines if not line.startswith(("[", "<")) and line.lower() != line.upper()]
    large = sum(line != line.lower() for line in words)
    return large <= FEW * len(words), f"{large} of {len(words)} word pieces with letters have a capital"
