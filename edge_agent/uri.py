"""Addresses of sources and tasks: ``SCHEME:REST?OPTION=VALUE``, their options read and checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import msgspec

from edge_agent.errors import ConfigError, nearest


class Uri(msgspec.Struct, frozen=True):
    """``scheme:rest?option=value&option=value``, as sources and tasks are written in the config."""

    scheme: str
    rest: str
    options: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __str__(self) -> str:
        tail = "&".join(f"{k}={v}" for k, v in self.options.items())
        return f"{self.scheme}:{self.rest}" + (f"?{tail}" if tail else "")


NETWORK = ("rtsp", "rtsps", "http", "https")
"""schemes of addresses whose query belongs to the camera"""
OPTIONS_MEANT = {
    "confidence": "score",
    "conf": "score",
    "threshold": "score",
    "min_score": "score",
    "nms": "iou",
    "class": "classes",
    "labels": "classes",
    "top_k": "top max",
    "limit": "max",
    "w": "width",
    "h": "height",
    "framerate": "fps",
    "rate": "fps",
    "repeat": "loop",
    "timeout": "stall",
    "pix_fmt": "format",
    "pixelformat": "fourcc format",
}
"""the same of options of sources and tasks"""


def parse_uri(text: str) -> Uri:
    """Split ``scheme:rest?key=value``.

    /dev/videoN reads as camera:/dev/videoN. In rtsp and http addresses the query belongs to the camera, so our
    options stand after a ``#``: ``rtsp://host/stream?channel=1#fps=5``; those of ``ffmpeg:`` and of a topic, too, which
    may hold a ``?``.
    """
    if text.startswith("/dev/video"):
        text = f"camera:{text}"
    scheme, colon, rest = text.partition(":")
    # "theirpkg.module:attr:rest" names somebody else's source or task
    if "." in scheme and colon:
        attr, _, rest = rest.partition(":")
        scheme = f"{scheme}:{attr}"
    if not colon or not re.fullmatch(r"[A-Za-z][\w+.\-]*(:\w+)?", scheme):
        raise ConfigError(f'"{text}" has no scheme; write e.g. "camera:0", "files:photos" or "lines:-"')
    mark = "#" if scheme in (*NETWORK, "mqtt", "ffmpeg") else "?"
    head, found, tail = rest.rpartition(mark)
    if not found or not re.fullmatch(r"[\w\-]+=[^&]*(&[\w\-]+=[^&]*)*", tail):
        return Uri(scheme, rest)
    return Uri(scheme, head, dict(pair.split("=", 1) for pair in tail.split("&")))


def parse_task(text: str) -> Uri:
    """Split a task, which may stand without a colon: ``crowd`` is ``crowd:``."""
    return parse_uri(text if ":" in text else f"{text}:")


def option(uri: Uri, known: dict[str, str], key: str) -> str:
    """One option of a URI, or its default from `known`; ConfigError names the nearest for an unknown one."""
    for given in uri.options:
        if given not in known:
            raise ConfigError(f'"{uri}": unknown option "{given}"{nearest(given, known, OPTIONS_MEANT)}')
    return uri.options.get(key, known[key])


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
