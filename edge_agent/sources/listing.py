"""What there is under a path: pictures and videos, or else recordings."""

from __future__ import annotations

import glob
from pathlib import Path

from edge_agent.errors import SourceError

PICTURES = {
    ".jpg", ".jpeg", ".jpe", ".jp2", ".png", ".bmp", ".dib", ".webp",
    ".avif", ".gif", ".tif", ".tiff", ".pbm", ".pgm", ".ppm", ".pnm", ".ras",
}  # fmt: skip
VIDEOS = {
    ".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mjpg", ".mjpeg",
    ".mpg", ".mpeg", ".ts", ".mts", ".flv", ".wmv", ".h264", ".h265", ".264",
}  # fmt: skip
SOUNDS = {".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".aif", ".aiff", ".wma", ".amr"}
BEGINNINGS = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3")
"""of files of sound whose names say nothing; the first two may also hold a film, and say WAVE where they do not"""


def is_sound(path: Path) -> bool:
    """By its name, else by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in SOUNDS | PICTURES | VIDEOS:
        return suffix in SOUNDS
    try:
        with path.open("rb") as file:
            begins = file.read(12)
    except OSError:
        return False
    return begins.startswith(BEGINNINGS) and (begins[:1] != b"R" or begins[8:] == b"WAVE")


def listed(path: str) -> list[Path]:
    """The files meant by `path`, by name. SourceError when there is none."""
    here = Path(path)
    if here.is_dir():
        found = _of_one_kind(path, PICTURES)
        none = "no picture and no recording in this folder; for videos name one, or give a glob such as *.mp4"
    elif here.is_file():
        return [here]
    elif here.exists():
        raise SourceError(f"{path}: neither a file nor a folder")
    elif glob.has_magic(path):
        found, none = _of_one_kind(path, PICTURES | VIDEOS), "no picture, video or recording matches"
    else:
        raise SourceError(f"{path}: no such file or folder; give a picture, a folder, a glob, a video or a recording")
    if not found:
        raise SourceError(f"{path}: {none}")
    return found


def _of_one_kind(path: str, seen: set[str]) -> list[Path]:
    """The files of these suffixes; those of sound where there is none of them."""
    return matching(path, seen) or matching(path, SOUNDS)


def matching(path: str, suffixes: frozenset[str] | set[str]) -> list[Path]:
    """The files of a folder, or those that a glob means, that end so, by name. SourceError."""
    try:
        if Path(path).is_dir():
            found = list(Path(path).iterdir())
        else:
            found = [Path(name) for name in glob.iglob(path, recursive=True)]  # noqa: PTH207, Path.glob takes no absolute pattern
    except OSError as error:
        raise SourceError(f"{path}: cannot be listed ({error.strerror}); check its owner and mode") from None
    return sorted(each for each in found if each.suffix.lower() in suffixes and each.is_file())
