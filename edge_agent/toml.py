"""TOML files that people write: read within limits, and each mistake told in one line with its mend."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from edge_agent.errors import ConfigError, ManifestError, nearest
from edge_agent.files import read_regular

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MANY_PARTS = re.compile(r"""(?<![\w\-])(?:(?:[\w\-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){32}""", re.ASCII)
"""a key of more than 32 parts: the parser's time grows with their square, and more than 100 deep nobody reads"""
Kind = TypeVar("Kind")
_QUOTES = "\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb"


def load(path: Path, most: int, kind: type[Kind]) -> Kind:
    """A file of at most `most` bytes as a struct. ConfigError, one line that names the file, the key and the mend."""
    try:
        return convert(parse(read_text(path, most)), kind)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def read_text(path: Path, most: int) -> str:
    """The text of a file of at most `most` bytes, without a byte order mark. ConfigError, which does not name it."""
    try:
        raw = read_regular(path, most)
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror}); give the path of a text file") from None
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff") or (len(raw) > 1 and 0 in raw[:2]):
        raise ConfigError("is UTF-16, not UTF-8; save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"line {line}: not UTF-8 (byte {error.start} of the file); save it as UTF-8") from None


def parse(text: str) -> dict[str, Any]:
    """The table in a text. ConfigError with the line and the mend, and without the value: it may be a secret."""
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ConfigError(f"line {line}: holds a NUL, which is no text; delete it, or save the file anew")
    if found := _MANY_PARTS.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise ConfigError(f"line {line}: a key of more than 32 parts; write it shorter")
    try:
        table: dict[str, Any] = tomllib.loads(text)
        return table
    except RecursionError:
        raise ConfigError("not TOML that can be read: brackets nested too deep; take some out") from None
    except ValueError as error:  # TOMLDecodeError is one; a number of thousands of digits raises a plain one
        raise ConfigError(f"not TOML: {_mend(text, str(error))}") from None


def _mend(text: str, said: str) -> str:
    """What the parser said, as line, key and what to write."""
    if "digits" in said:
        return "a number has thousands of digits; write a smaller one"
    what, _, place = said.partition(" (at ")
    found = re.match(r"line (\d+)", place)
    lines = text.splitlines() or [""]
    number = int(found[1]) if found else len(lines)
    line = lines[min(number, len(lines)) - 1]
    pair = re.match(r"\s*([\w.\-]+)\s*=\s*(.?)", line)
    key = pair[1] if pair else ""
    here = f"line {number}"
    at = f"{here}, {key}" if key else here
    no_end = "'\\n'" in what or (not found and line.count('"') % 2)
    no_value = bool(key) and what == "Invalid value"
    looks = 'write TOML: [section], and below it key = "value"'
    mends = (
        (what.startswith(_TWICE), f"{at}: stands twice; delete one"),
        (bool(set(line) & set(_QUOTES)), f'{at}: typographic quotes; write straight ones: "'),
        (text.lstrip().startswith("{"), f"this looks like JSON; {looks}"),
        (re.match(r"\s*(- )?[\w.\-]+\s*:", line), f"{here}: this looks like YAML; {looks}"),
        (what.startswith("Expected '='"), f"{here}: a key without a value; write key = value"),
        (no_end, f"{at}: a quote is not closed; write it at the end of the text"),
        (no_value and pair and not pair[2], f"{at}: no value; write one behind the ="),
        (
            no_value,
            f'{at}: no value of TOML; write text in quotes, {key} = "…", and true or false in lower case',
        ),
        (True, f"{at}: {what[:1].lower()}{what[1:]}; write key = value, text in quotes"),
    )
    return next(mend for is_so, mend in mends if is_so)


_TWICE = ("Cannot overwrite", "Cannot declare", "Duplicate", "Cannot mutate")


# ── tables as structs ────────────────────────────────────────────────────────────────────────────────────


def convert(table: dict[str, Any], kind: type[Kind], meant: Mapping[str, str] | None = None) -> Kind:
    """A table as a struct. ConfigError with the key, what was expected in TOML's words, and what to write.

    `meant`: other words for keys, see `nearest`. Of a field's Meta, `description` says in words what its pattern
    means, and `examples` what to write.
    """
    try:
        return msgspec.convert(table, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ConfigError(explain(str(error), kind, table, meant)) from None


def explain(said: str, kind: type, table: object, meant: Mapping[str, str] | None = None) -> str:
    """What msgspec says of a table that is no `kind` (``... - at `$.pipeline[0].name` ``), for people."""
    from msgspec import inspect

    what, _, where = said.rpartition(" - at `")
    if not what:
        what, where = said, "$"
    place = where.rstrip("`").removeprefix("$").lstrip(".")
    key, want, value, default = _at(place, inspect.type_info(kind), table)
    shown = re.match(r"Object (contains unknown|missing required) field `(.*)`", what, re.DOTALL)
    if shown is None:
        given = "" if value is None else f", not {_given(value, want)}"
        mend = _mend_of(key, want, value, default, place.endswith("]"))
        return f"{place or 'the file'}: must be {_words(want)}{given}{mend}"
    fields = {field.encode_name: field.type for field in getattr(_of_many(want, inspect.StructType), "fields", ())}
    if shown[1].startswith("missing"):
        return f'{place}{": " * bool(place)}"{shown[2]}" is missing{_example(shown[2], fields.get(shown[2]), None)}'
    unknown = _quoted(f"{place}." * bool(place) + shown[2], 200)
    return f"unknown key {unknown}{nearest(shown[2], fields, meant)}"


def _at(place: str, want: Any, value: Any) -> tuple[str, Any, Any, Any]:
    """What stands at a place (``pipeline[0].name``) of a table of the type `want`: its key, type, value and default."""
    from msgspec import inspect

    key, default = "", None
    for step in re.findall(r"\[\d*(?:\.\.\.)?\]|[^.\[\]]+", place):
        want = _of_many(want, inspect.StructType if step[0] != "[" else (inspect.DictType, inspect.CollectionType))
        if isinstance(want, inspect.StructType):
            field = next((field for field in want.fields if field.encode_name == step), None)
            if field is None:
                break
            key, want, default = step, field.type, None if field.default is msgspec.NODEFAULT else field.default
            value = value.get(step) if isinstance(value, dict) else None
        elif isinstance(want, inspect.DictType):
            want, value = want.value_type, None
        else:
            want = getattr(want, "item_type", None) or (getattr(want, "item_types", None) or [want])[0]
            value = value[int(step[1:-1])] if isinstance(value, list) and step[1:-1].isdigit() else None
    return key, want, value, default


def _of_many(want: Any, kinds: Any) -> Any:
    """Of a union the member of one of these kinds; what stands under its Metadata."""
    want = getattr(want, "type", want)
    among = [getattr(each, "type", each) for each in getattr(want, "types", ())]
    return next((each for each in among if isinstance(each, kinds)), want)


def _words(want: Any) -> str:
    """A type in TOML's words."""
    from msgspec import inspect

    if isinstance(want, inspect.Metadata):
        return (want.extra_json_schema or {}).get("description") or _words(want.type)
    if isinstance(want, inspect.UnionType):
        return " or ".join(_words(each) for each in want.types if not isinstance(each, inspect.NoneType))
    if isinstance(want, inspect.LiteralType):
        return " or ".join(f'"{value}"' for value in want.values)
    if isinstance(want, inspect.TupleType):
        return f"a list of {len(want.item_types)} values"
    for type_, words in (
        (inspect.IntType, "a whole number" + _range(want)),
        (inspect.FloatType, "a number" + _range(want)),
        (inspect.BoolType, "true or false"),
        (inspect.StrType, "text in quotes that is not empty" if getattr(want, "min_length", 0) else "text in quotes"),
        (inspect.CollectionType, "a list"),
    ):
        if isinstance(want, type_):
            return words
    return "a table"


def _range(want: Any) -> str:
    """The bounds of a number's type."""
    above, least, below, most = (getattr(want, name, None) for name in ("gt", "ge", "lt", "le"))
    low = f" above {_plain(above)}" if above is not None else f" from {_plain(least)}" if least is not None else ""
    high = most if most is not None else below
    return low + (f" to {_plain(high)}" if high is not None else "")


def _plain(number: float) -> str:
    return f"{number:,}".replace(",", "_") if isinstance(number, int) else f"{number:g}"


def _given(value: Any, want: Any) -> str:
    """What stands there instead. A text is shown only where a pattern or a choice is asked for: others are secrets."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, str):
        open_ = re.match(r"(Metadata\(type=|UnionType\(types=\()*(LiteralType|StrType\(.*pattern=')", repr(want))
        return _quoted(value, 40) if open_ or not value else "text"
    kinds: dict[type, str] = {list: "a list", dict: "a table"}
    return kinds.get(type(value), "a date or time")


def _number(value: float) -> str:
    if isinstance(value, int) and abs(value) >= 10**300:
        return f"a number of {len(str(abs(value)))} digits"  # it may be larger than any float
    return f"{value:.3g}" if abs(value) >= 1e16 else str(value)


def _quoted(text: str, most: int) -> str:
    """A text as TOML writes it, on one line; no more of it than its first `most` characters."""
    return msgspec.json.encode(text[:most] + "…" * (len(text) > most)).decode()


def _example(key: str, want: Any, default: Any) -> str:
    """`; write e.g. key = …`, from the examples of the field or its default; "" where there is neither."""
    metas = [want, *getattr(want, "types", ())]
    examples = [each for meta in metas for each in (getattr(meta, "extra_json_schema", None) or {}).get("examples", ())]
    example = examples[0] if examples else default
    if not isinstance(example, str | int | float | list):
        return ""
    text = msgspec.json.encode(example).decode()
    return f"; write e.g. {key} = {_plain(example) if type(example) is int else text}"


def _mend_of(key: str, want: Any, value: Any, default: Any, one_of: bool) -> str:
    from msgspec import inspect

    of_tables = isinstance(want, inspect.ListType) and isinstance(want.item_type, inspect.StructType)
    if of_tables or (one_of and isinstance(want, inspect.StructType)):
        return f"; write [[{key}]], with two brackets, once for each"
    if isinstance(want, inspect.StructType):
        how = "with one bracket, once" if isinstance(value, list) else "and its keys below it"
        return f"; write [{key}], {how}" if key else ""
    if isinstance(want, inspect.IntType | inspect.FloatType) and isinstance(value, str) and value.strip().isdigit():
        return f"; write it without quotes: {key} = {value.strip()}"
    return _example(key, want, default)


# \Z and not $, which lets a newline stand behind
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}\Z"
"""What may stand in a topic, a path and an id alike: no slash, no wildcard, no space."""


PREFIX = r"^[^/+#\s\0]+(/[^/+#\s\0]+){0,2}\Z"
REPORT = r"^(changes|every|summary:(?![0.]+s)\d{1,6}(\.\d{1,3})?s)\Z"
_NAMED = "1 to 64 letters, digits or _ . - (it stands in topics)"
Name = Annotated[str, msgspec.Meta(pattern=NAME, description=_NAMED, examples=["door"])]


def toml(table: dict[str, Any]) -> str:
    """A manifest's plain values as TOML 1.0: scalars and lists first, then the tables and the [[file]] rows."""
    plain = {k: v for k, v in table.items() if v is not None and not isinstance(v, dict) and k != "file"}
    lines = _pairs(plain)
    for key, value in table.items():
        if isinstance(value, dict):
            lines += ["", f"[{key}]", *_pairs(value)]
    for row in table["file"]:
        lines += ["", "[[file]]", *_pairs(row)]
    return "\n".join(lines) + "\n"


def _pairs(table: dict[str, Any]) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in table.items() if value is not None]


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, dict):
        inner = [f"{_value(key)} = {_value(inner)}" for key, inner in value.items() if inner is not None]
        return "{ " + ", ".join(inner) + " }"
    if isinstance(value, str):
        if any(0xD800 <= ord(c) <= 0xDFFF for c in value):
            raise ManifestError(f"{value!a} cannot be written as TOML; rename it")
        # a JSON string is a TOML basic string, but for DEL
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
