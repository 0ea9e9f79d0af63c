"""Finds what names a person in a text: e-mail addresses, phone numbers, cards, accounts, number plates.

Secrets in addresses are another matter (redact.py). What is looked for is read from a plain form of the text: digits of
any script and full-width letters as ASCII, invisible characters left out, every space a space and every dash a hyphen.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import TypeAlias

Place: TypeAlias = tuple[int, int]
"""start and end in characters, end exclusive"""
Plain: TypeAlias = tuple[str, "list[int] | None"]
"""a text in its plain form, and where each of its characters, and its end, stands in the text; None: the same places"""


def plain(text: str) -> Plain:
    """The plain form of a text."""
    if text.isascii():
        return text, None
    out: list[str] = []
    at: list[int] = []
    for index, character in enumerate(text):
        shown = _shown(character)
        if shown == _ON_TOP:  # a stroke through a digit hides nothing from people
            shown = "" if out and out[-1].isdigit() else character
        if shown:
            out.append(shown)
            at += [index] * len(shown)
    return "".join(out), [*at, len(text)]


_ON_TOP = "\u0300"


@lru_cache(maxsize=4096)
def _shown(character: str) -> str:
    """A character in its plain form; "" for one that nobody sees, _ON_TOP for one that stands on another."""
    if character.isascii():
        return character
    kind = unicodedata.category(character)
    if kind == "Cf":
        return ""
    if kind in ("Mn", "Me"):
        return _ON_TOP
    if character.isspace():
        return " "
    if kind == "Pd" or character == "−":
        return "-"
    return str(unicodedata.decimal(character)) if character.isdecimal() else unicodedata.normalize("NFKC", character)


# ── what is looked for; each repetition has a bound, so that no text can make it take long ───────────────

_EMAIL = re.compile(r"(?<![\w.+-])[\w.!#$%&'*+/=?^`{|}~-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w-])")
_PHONE = re.compile(
    r"(?<![\w+.,:/=#-])(?:"
    r"(?:\+|00)[1-9](?:[ ().\-/]{0,3}\d){6,14}"  # with the country's code
    r"|(?:\(0[1-9]\d{0,4}\)|0[1-9]\d{0,4})(?:[ .\-/]{0,3}\d){5,9}"  # within a country, with its 0
    r"|(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4}"  # North America
    r")(?![\w%€$]|[.,:/-]\d)"
)
_DATE = re.compile(r"\d{1,2}([./ -])\d{1,2}\1\d{2,4}")
_CARD = re.compile(r"(?<![\d.,])\d(?:[ -]{0,2}\d){11,40}(?!\d)")
_ISSUED = re.compile(
    r"4\d{15}(?:\d{3})?|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[689]\d)\d{11,16}|(?:6|5[0678]|35|81)\d{14,17}"
)
"""first digits and lengths of cards, as ISO/IEC 7812 numbers are given out"""
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d\d(?:[ -]?[A-Za-z0-9]){11,30}")
_COUNTRIES = {
    15: "NO",
    16: "BE",
    18: "DK FI FO GL NL",
    19: "MK SI",
    20: "AT BA EE KZ LT LU XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU",
    31: "MT SC",
}
"""characters of an account's number (ISO 13616) -> the countries whose numbers have as many"""
_LENGTHS = {country: length for length, all_of in _COUNTRIES.items() for country in all_of.split()}
_PLATE = re.compile(
    r"(?<![\w-])(?!(?:ISO|IEC|DIN|RFC|CVE|USB|UTF)\b)(?:"
    r"[A-ZÄÖÜ]{1,3}-[A-Z]{1,2} ?\d{1,4}[EH]?|[A-ZÄÖÜ]{1,3} [A-Z]{2} \d{2,4}[EH]?"  # Germany
    r"|[A-Z]{2}\d\d ?[A-Z]{3}"  # Britain
    r"|[A-Z]{2}([- ]?)\d{3}\1[A-Z]{2}"  # France, Italy
    r"|\d{4}[- ]?[BCDFGHJ-NPRSTV-Z]{3}"  # Spain
    r"|\d\d-[A-Z]{2,3}-\d{1,2}|\d-[A-Z]{3}-\d\d|[A-Z]{1,2}-\d{3}-[A-Z]{1,2}|[A-Z]{3}-\d\d-[A-Z]"  # Netherlands
    r"|[A-Z]{1,2}-\d{2,5} ?[A-Z]{1,3}"  # Austria
    r"|\d[A-Z]{3}\d{3}|[A-Z]{3}-\d{4}"  # California; Texas, New York
    r")(?![\w-])"
)


def _emails(text: str) -> Iterator[Place]:
    return (found.span() for found in _EMAIL.finditer(text)) if "@" in text else iter(())


def _phones(text: str) -> Iterator[Place]:
    for found in _PHONE.finditer(text):
        if not _DATE.fullmatch(found[0]) and (sum(map(str.isdigit, found[0])) >= 8 or found[0][0] != "0"):
            yield found.span()


def _cards(text: str) -> Iterator[Place]:
    """Groups of digits that together are a card's number."""
    for found in _CARD.finditer(text):
        groups = [group.span() for group in re.finditer(r"\d+", found[0])]
        begin = 0
        while begin < len(groups):
            for end in range(len(groups), begin, -1):
                digits = "".join(found[0][start:stop] for start, stop in groups[begin:end])
                if _ISSUED.fullmatch(digits) and _luhn(digits):
                    yield found.start() + groups[begin][0], found.start() + groups[end - 1][1]
                    begin = end - 1
                    break
            begin += 1


def _luhn(digits: str) -> bool:
    """The check digit (ISO/IEC 7812-1, annex B)."""
    return sum(sum(divmod(int(digit) * (1 + at % 2), 10)) for at, digit in enumerate(digits[::-1])) % 10 == 0


def _ibans(text: str) -> Iterator[Place]:
    for found in _IBAN.finditer(text):
        ends = [at + 1 for at, character in enumerate(found[0]) if character.isalnum()]
        length = _LENGTHS.get(found[0][:2].upper(), 0)
        if not length or len(ends) < length:
            continue
        end = found.start() + ends[length - 1]
        number = "".join(filter(str.isalnum, text[found.start() : end])).upper()
        # ISO 7064, MOD 97-10
        if (
            not text[end : end + 1].isalnum()
            and int("".join(str(int(c, 36)) for c in number[4:] + number[:4])) % 97 == 1
        ):
            yield found.start(), end


def _plates(text: str) -> Iterator[Place]:
    return (found.span() for found in _PLATE.finditer(text))


FINDERS: dict[str, Callable[[str], Iterable[Place]]] = {
    "iban": _ibans,
    "card": _cards,
    "email": _emails,
    "phone": _phones,
    "plate": _plates,
}
"""name -> where such things stand in a plain text; of two in one place the first one here counts"""


def replaced(text: str, form: Plain, found: Iterable[tuple[str, Place]]) -> str:
    """A text with [NAME] in the place of what was found in its plain form; of two that overlap the first one counts."""
    told, at = form
    free = bytearray(len(told))
    taken: list[tuple[int, int, str]] = []
    for name, (start, end) in found:
        if start < end and not any(free[start:end]):
            free[start:end] = b"\1" * (end - start)
            taken.append((start, end, name))
    for start, end, name in sorted(taken, reverse=True):
        if at is not None:
            start, end = at[start], at[end - 1] + 1
        text = f"{text[:start]}[{name}]{text[end:]}"
    return text
