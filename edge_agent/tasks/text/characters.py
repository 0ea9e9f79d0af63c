"""What a character is to BERT's tokenizer: a letter, punctuation or a space, by the categories of Unicode 8."""

from __future__ import annotations

import unicodedata

CIRCLED = ((0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189))
"""symbols that count as letters"""
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


LATER = _ranges(LATE)


def category(char: str) -> str:
    """Unicode's general category as the reference sees it; late comers are "Lo"."""
    if char in EARLY:
        return EARLY[char]
    return "Lo" if ord(char) in LATER else unicodedata.category(char)


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
