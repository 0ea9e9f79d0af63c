"""Options of an address as values."""

from __future__ import annotations

import math

from edge_agent.config import option
from edge_agent.errors import ConfigError
from edge_agent.types import Uri

_ON, _OFF = ("true", "on", "yes", "1"), ("false", "off", "no", "0")


def number(uri: Uri, known: dict[str, str], key: str, least: float, most: float) -> float:
    """A number from `least` to `most`; 0 for an option that is "" or "off". ConfigError for anything else."""
    text = option(uri, known, key)
    if text in ("", "off"):
        if text and known[key] == "":
            raise ConfigError(f'"{uri}": {key}={text}: give a number from {least:g} to {most:g}, or leave it out')
        return 0.0
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise ConfigError(f'"{uri}": {key}={text}: give a number from {least:g} to {most:g}')
    return value


def whole(uri: Uri, known: dict[str, str], key: str, least: int, most: int) -> int:
    """A whole number from `least` to `most`; 0 for an option that was not given. ConfigError for anything else."""
    value = number(uri, known, key, least, most)
    if value != int(value):
        raise ConfigError(f'"{uri}": {key}={uri.options[key]}: give a whole number from {least} to {most}')
    return int(value)


def switch(uri: Uri, known: dict[str, str], key: str) -> bool:
    """true/false, on/off, yes/no, 1/0. ConfigError for anything else."""
    text = option(uri, known, key).lower()
    if text not in _ON + _OFF:
        raise ConfigError(f'"{uri}": {key}={text}: give true or false')
    return text in _ON


def choice(uri: Uri, known: dict[str, str], key: str, among: tuple[str, ...]) -> str:
    """One of `among`. ConfigError for anything else."""
    text = option(uri, known, key)
    if text not in among:
        raise ConfigError(f'"{uri}": {key}={text}: give {" or ".join(among)}')
    return text
