"""``pipe:COMMAND?width=W&height=H&format=F``: raw frames from the standard output of a program; with
``?format=s16&rate=R&channels=C``, or another of resample.FORMATS, raw sound.

For what cv2 cannot open: CSI cameras (rpicam-vid), GStreamer (gst-launch-1.0 … ! fdsink), ffmpeg; and recorders such as
arecord or pw-record. No shell: the command is split as a shell would split it, and quotes work. Further options of
frames: those of judge.RULES, ``fps=N``; of sound: ``stall``, ``pause``.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from edge_agent.errors import ConfigError, SourceError
from edge_agent.sources import Here, Opened, resample
from edge_agent.sources.hear import BLOCK_S, SoundReader, hear
from edge_agent.sources.judge import RULES, rules
from edge_agent.sources.program import Program, command_of
from edge_agent.sources.watch import StreamReader, thinner, watch
from edge_agent.types import Audio, Floats, Frame, Pixels
from edge_agent.uri import Uri, choice, number, whole

KNOWN = {"width": "", "height": "", "format": "bgr24", "fps": "", **RULES}
KNOWN_OF_SOUND = {"format": "", "rate": "16000", "channels": "1", "stall": RULES["stall"], "pause": RULES["pause"]}

FORMATS: dict[str, tuple[int, int, str]] = {
    "bgr24": (3, 1, ""),
    "rgb24": (3, 1, "COLOR_RGB2BGR"),
    "gray": (1, 1, "COLOR_GRAY2BGR"),
    "yuv420p": (3, 2, "COLOR_YUV2BGR_I420"),
    "nv12": (3, 2, "COLOR_YUV2BGR_NV12"),
    "yuyv422": (2, 1, "COLOR_YUV2BGR_YUY2"),
}
"""ffmpeg's name -> bytes a pixel as a fraction, cv2's name of the conversion"""

OF_SOUND = {f"{name}{end}": name for name in resample.FORMATS for end in ("", "le") if name + end != "u8le"}
"""names of raw sound, ffmpeg's among them -> resample's"""


def pipe(uri: Uri, here: Here) -> Opened:
    """Bind a program; yields Frames, or Audio. It is started again when it ends.

    ConfigError for the options, SourceError when the program is not installed.
    """
    # its arguments may hold an address with a password
    said = Uri(uri.scheme, f"{''.join(uri.rest.split()[:1])} …", uri.options)
    command = command_of(uri.rest, said)
    layout = choice(said, {**KNOWN_OF_SOUND, **KNOWN}, "format", (*FORMATS, *OF_SOUND))
    if layout in OF_SOUND:
        return _sound(command, said, OF_SOUND[layout])
    width, height = whole(said, KNOWN, "width", 1, 32768), whole(said, KNOWN, "height", 1, 32768)
    if not (width and height):
        raise ConfigError(f'"{said}": raw frames state no size; give width=W&height=H')
    if (layout in ("yuv420p", "nv12", "yuyv422") and width % 2) or (layout in ("yuv420p", "nv12") and height % 2):
        raise ConfigError(f'"{said}": {layout} needs an even width and height')
    believed = rules(said, KNOWN)
    fps = number(said, KNOWN, "fps", 0.001, 1000)

    def open_() -> StreamReader:
        return _start(command, width, height, layout, fps)

    return Opened(run=lambda stop: watch(open_, believed, stop), yields=Frame, live=True)


def _sound(command: list[str], said: Uri, layout: str) -> Opened:
    """The same of raw sound, its channels in turns."""
    rate = whole(said, KNOWN_OF_SOUND, "rate", *resample.RATES)
    channels = whole(said, KNOWN_OF_SOUND, "channels", 1, resample.MOST_CHANNELS)
    stall = number(said, KNOWN_OF_SOUND, "stall", 0.1, 3600)
    pause = number(said, KNOWN_OF_SOUND, "pause", 0.5, 3600)

    def open_() -> SoundReader:
        program = Program(command)
        block = max(1, round(rate * BLOCK_S)) * channels * resample.width(layout)

        def read() -> tuple[Floats, bool]:
            buffer = bytearray(block)
            got = program.fill(buffer)
            if not got:
                raise SourceError(f"{command[0]}: {program.obituary()}")
            return resample.samples(buffer[:got], layout, channels), False

        return SoundReader(Path(command[0]).name, rate, channels, read, program.close, program.abort)

    return Opened(run=lambda stop: hear(open_, stop, stall=stall, pause=pause, waits=True), yields=Audio, live=True)


def _start(command: list[str], width: int, height: int, layout: str, fps: float) -> StreamReader:
    """Start the program; frames as it writes them."""
    program = Program(command)
    wanted = thinner(fps)
    over, under, _ = FORMATS[layout]
    size = width * height * over // under

    def read() -> Frame | None:
        buffer = bytearray(size)
        if program.fill(buffer) < size:
            raise SourceError(f"{command[0]}: {program.obituary()}")
        at, mono = time.time(), time.monotonic()
        if not wanted(mono):
            return None
        image = _pixels(buffer, width, height, layout)
        return Frame(image, at, mono, decode_ms=1000 * (time.monotonic() - mono))

    return StreamReader(read, program.close, program.abort)


def _pixels(buffer: bytearray, width: int, height: int, layout: str) -> Pixels:
    """One raw frame as (height, width, 3) BGR; bgr24 shares the buffer, which is not used again."""
    over, under, code = FORMATS[layout]
    from edge_agent.pictures.read import bgr, cv2  # a program that gives sound needs none of it

    raw = np.frombuffer(buffer, np.uint8)
    if not code:
        return raw.reshape(height, width, 3)
    shape = (height * over // under, width) if under > 1 else (height, width, over)
    return bgr(cv2.cvtColor(raw.reshape(shape), getattr(cv2, code)))
