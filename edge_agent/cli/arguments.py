"""What options may say, each as argparse's type: it raises ArgumentTypeError, one line, for what it is not."""

from __future__ import annotations

import argparse
import re
from pathlib import Path


def folder(text: str) -> str:
    """The path of a folder, or of one that may be made."""
    if not text.strip() or "\0" in text or (Path(text).exists() and not Path(text).is_dir()):
        raise argparse.ArgumentTypeError(f'"{text}" is no folder')
    return text


def count(text: str) -> int:
    """A number from 0 to 1024."""
    if not re.fullmatch("[0-9]{1,4}", text) or int(text) > 1024:
        raise argparse.ArgumentTypeError(f'"{text}" is no number from 0 to 1024')
    return int(text)


def bytes(text: str) -> int:
    """A number of bytes."""
    units = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if not re.fullmatch("[0-9]{1,18}", number) or unit not in units:
        raise argparse.ArgumentTypeError(f'"{text}" is no number of bytes, such as 5000000, 500M or 2G')
    return int(number) * units[unit]


def seconds(text: str) -> float:
    """A number of seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f'"{text}" is no number of seconds above 0')
    return value


def duration(text: str) -> float:
    """A time, in seconds: 90, 90s, 10m (or 10min), 1h."""
    match = re.fullmatch(r"([0-9]{1,7}(?:\.[0-9]{1,3})?)(s|m|min|h)?", text)
    if match is None or not float(match[1]):
        raise argparse.ArgumentTypeError(f'"{text}" is no time such as 90s, 10m or 1h')
    return float(match[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600}[match[2] or "s"]


def common_options(of: argparse.ArgumentParser) -> None:
    """On each side of the verb; left out, they say nothing against the other side."""
    of.add_argument(
        "-v", "--verbose", action="store_true", default=argparse.SUPPRESS, help="say more about what happens"
    )
    help = "where models and what is known of them are kept (default: $EDGE_AGENT_HOME, ~/.local/share/edge-agent)"
    of.add_argument("--home", default=argparse.SUPPRESS, metavar="FOLDER", type=folder, help=help)
