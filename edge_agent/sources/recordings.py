"""``files:*.wav``: recordings, one after the other. See listing.py for what makes a path one of sound.

WAV is read here; what ffmpeg can decode (flac, ogg, mp3, m4a …) is, where that program is installed. Options:
``pace=own`` gives the sound in its own time, as a microphone would; ``loop=true`` begins again at the end.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from edge_agent.errors import InputError, SourceError
from edge_agent.files import open_regular
from edge_agent.programs import environment, which
from edge_agent.sources import Opened
from edge_agent.sources.listing import SOUNDS, listed
from edge_agent.sources.program import Program
from edge_agent.sources.resample import RATE, Funnel, samples, width
from edge_agent.sources.wav import OddError, Read, Wav, header
from edge_agent.types import Audio, StreamState
from edge_agent.uri import Uri, choice, switch

KNOWN = {"pace": "", "loop": "false"}

PLAIN = {".wav", ".wave"}
DEMUXERS = "wav,w64,flac,ogg,mp3,mov,aac,aiff,asf,amr"
"""what ffmpeg may take a file for; none of them leads to another file or address"""
STALL_S = 30.0
"""seconds for which ffmpeg may give nothing"""
BLOCK_S, OWN_BLOCK_S = 0.5, 0.1
"""seconds of sound in one go, and where it is given in its own time"""

log = logging.getLogger("edge_agent")


def recordings(uri: Uri, path: str) -> Opened:
    """Bind the recordings that `path` means; yields Audio, the last of each file marked so.

    ConfigError for an option, SourceError where no file can be read without a program that is not installed. A file
    that cannot be read is logged and skipped.
    """
    own, loop = choice(uri, KNOWN, "pace", ("", "own")) == "own", switch(uri, KNOWN, "loop")
    found = listed(path)
    if which("ffmpeg") is None and not any(map(_is_plain, found)):
        raise SourceError(f"{found[0]}: {_needs_ffmpeg()}")
    return Opened(run=lambda stop: _run(path, own, loop, stop), yields=Audio, live=own)


def _is_plain(path: Path) -> bool:
    """Whether it is tried as a WAV: by its name, or where that says nothing."""
    return path.suffix.lower() not in SOUNDS - PLAIN


def _needs_ffmpeg() -> str:
    return "is decoded by ffmpeg, which is not installed; `apt install ffmpeg`, or make it a WAV"


def _run(place: str, own: bool, loop: bool, stop: threading.Event) -> Iterator[Audio | StreamState]:
    skipped: set[Path] = set()
    while True:
        came = False
        for audio in _each_once(place, own, skipped, stop):
            if not came:
                yield StreamState("ok")
            came = True
            yield audio
        if stop.is_set():
            return
        if not loop:
            yield StreamState("ended", f"{len(skipped)} unreadable skipped" if skipped else "")
            return
        if not came:
            raise SourceError(f"{place}: not one recording in it can be read; see the log for each")


def _each_once(place: str, own: bool, skipped: set[Path], stop: threading.Event) -> Iterator[Audio]:
    """The sound of each file; what cannot be read is added to `skipped`, and logged the first time."""
    for path in listed(place):
        try:
            yield from _recording(path, own, stop)
        except InputError as error:
            if path not in skipped:
                skipped.add(path)
                log.warning("%s: skipped, it %s (%d skipped so far)", path, error, len(skipped))
        if stop.is_set():
            return


def _recording(path: Path, own: bool, stop: threading.Event) -> Iterator[Audio]:
    """The sound of one file; its last Audio, which may be empty, says so. InputError in words that follow "it"."""
    with contextlib.ExitStack() as stack:
        read, wav = _opened(path, stack, stop)
        funnel = Funnel(wav.rate, wav.channels)
        frame = width(wav.layout) * wav.channels
        second = frame * wav.rate
        block = max(1, round(wav.rate * (OWN_BLOCK_S if own else BLOCK_S))) * frame
        taken, due = 0, time.monotonic()
        while not stop.is_set():
            raw = read(block if wav.size is None else min(block, wav.size - taken))
            if len(raw) < frame:
                break
            taken += len(raw)
            sound = funnel(samples(raw, wav.layout, wav.channels))
            if own:
                # what comes late shifts the rest
                due = max(due + len(raw) / second, time.monotonic())
                stop.wait(due - time.monotonic())
            yield _audio(sound, path)
        if not taken:
            raise InputError("holds no sound")
        yield _audio(funnel(np.zeros((0, wav.channels), np.float32), last=True), path, last=True)
        if wav.size and wav.size - taken >= frame and not stop.is_set():
            there, whole = taken / second, wav.size / second
            log.warning("%s: is cut off: %.1f of the %.1f s that it states are there", path, there, whole)


def _audio(sound: np.ndarray[tuple[int], np.dtype[np.float32]], path: Path, last: bool = False) -> Audio:
    took = len(sound) / RATE
    return Audio(
        sound,
        time.time() - took,
        time.monotonic() - took,
        last=last,
        name=path.name.encode("utf-8", "replace").decode(),
    )


def _opened(path: Path, stack: contextlib.ExitStack, stop: threading.Event) -> tuple[Read, Wav]:
    """What reads a file's sound, and its header. InputError."""
    if _is_plain(path):
        try:
            file: BinaryIO = stack.enter_context(os.fdopen(open_regular(path), "rb"))
            return file.read, header(file.read)
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})") from None
        except InputError as odd:
            if path.suffix.lower() in PLAIN and not isinstance(odd, OddError):
                raise
            if which("ffmpeg") is None:
                raise InputError(f"{odd}; {_needs_ffmpeg()}") from None
    return _decoded(path, stack, stop)


def _decoded(path: Path, stack: contextlib.ExitStack, stop: threading.Event) -> tuple[Read, Wav]:
    """What ffmpeg makes of a file."""
    ffmpeg = which("ffmpeg")
    if ffmpeg is None:
        raise InputError(_needs_ffmpeg())
    if not path.stat().st_size:
        raise InputError("is empty")
    source = ["-protocol_whitelist", "file", "-format_whitelist", DEMUXERS, "-i", f"file:{path.absolute()}"]
    sink = ["-map", "0:a:0", "-c:a", "pcm_s16le", "-f", "wav", "-"]
    try:
        program = Program([ffmpeg, "-nostdin", "-v", "error", *source, *sink], environment(), stop)
    except SourceError as error:
        raise InputError(str(error)) from None
    stack.callback(program.close)

    def read(size: int) -> bytes:
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: program.fill(buffer, STALL_S)])

    try:
        return read, header(read)
    except InputError:
        raise InputError(f"cannot be decoded by ffmpeg ({program.obituary()})") from None
