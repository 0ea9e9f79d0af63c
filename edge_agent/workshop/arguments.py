"""Types of options that several verbs of the workshop take."""

from __future__ import annotations

import argparse


def share(text: str) -> float:
    """A number from 0 to 1; argparse.ArgumentTypeError for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'"{text}" is no number from 0 to 1')
    return value


def count(text: str) -> int:
    """A number from 1 to a million; argparse.ArgumentTypeError for anything else."""
    if not text.isdigit() or not 0 < int(text) <= 10**6:
        raise argparse.ArgumentTypeError(f'"{text}" is no number from 1 to 1000000')
    return int(text)
