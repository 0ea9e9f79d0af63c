"""What `detect` is to look at: pictures, folders, globs, films, cameras."""

from __future__ import annotations

import glob
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import InputError
from edge_agent.redact import redact
from edge_agent.types import Frame

ADDRESS = re.compile(r"(https?|rtsps?)://|(camera|pipe|ffmpeg|rpicam|jetson):|/dev/video\d", re.IGNORECASE)
"""how what is no file begins"""


@dataclass(frozen=True, slots=True)
class Place:
    """Something to look at."""

    name: str
    """as it may be shown"""
    number: int = 0
    """among all that were given"""
    path: Path | None = None
    """of a picture or a film"""
    film: bool = False
    address: str = ""
    """of a camera, or of a picture on the web"""

    def title(self, frame: Frame) -> str:
        """What the frame is called: a picture as it was given, and of a film with its number."""
        return f"{self.name}#{frame.name.rpartition('#')[2]}" if self.film else self.name


def given(texts: list[str]) -> Iterator[str]:
    """What was given, for - the lines of stdin."""
    for text in texts:
        if text != "-":
            yield text
            continue
        for line in sys.stdin:
            if line.strip():
                yield line.rstrip("\r\n")


def places_of(text: str) -> Iterator[Place]:
    """One of the arguments: a file, each picture and film of a folder or glob, or an address."""
    from edge_agent.sources.listing import PICTURES, VIDEOS, matching
    from edge_agent.sources.pictures import is_video

    path = Path(text)
    if ADDRESS.match(text) and not path.is_file():
        yield Place(redact(text), address=text)
        return
    found, none = [path], ""
    if path.is_dir():
        found = matching(text, PICTURES | VIDEOS)
        none = "no picture or video in this folder; for those of its folders give a glob such as 'x/**'"
    elif not path.exists() and glob.has_magic(text):
        found, none = matching(text, PICTURES | VIDEOS), "no picture or video matches"
    if not found:
        raise InputError(none)
    for one in found:
        yield Place(str(one), path=one, film=one.is_file() and is_video(one))
