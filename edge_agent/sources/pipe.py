"""``pipe:COMMAND?width=W&height=H&format=F``: raw frames from the standard output of a program.

For what cv2 cannot open: CSI cameras (rpicam-vid), GStreamer (gst-launch-1.0 … ! fdsink), ffmpeg. No shell: the
command is split as a shell would split it, and quotes work. Further options: those of judge.RULES, ``fps=N``.
"""

from __future__ import annotations

import time

import numpy as np

from edge_agent.errors import ConfigError, SourceError
from edge_agent.pictures.read import bgr, cv2
from edge_agent.sources import Here, Opened
from edge_agent.sources.judge import RULES, rules
from edge_agent.sources.program import Program, command_of
from edge_agent.sources.watch import StreamReader, thinner, watch
from edge_agent.types import Frame, Pixels
from edge_agent.uri import Uri, choice, number, whole

KNOWN = {"width": "", "height": "", "format": "bgr24", "fps": "", **RULES}

FORMATS: dict[str, tuple[int, int, int | None]] = {
    "bgr24": (3, 1, None),
    "rgb24": (3, 1, cv2.COLOR_RGB2BGR),
    "gray": (1, 1, cv2.COLOR_GRAY2BGR),
    "yuv420p": (3, 2, cv2.COLOR_YUV2BGR_I420),
    "nv12": (3, 2, cv2.COLOR_YUV2BGR_NV12),
    "yuyv422": (2, 1, cv2.COLOR_YUV2BGR_YUY2),
}
"""ffmpeg's name -> bytes a pixel as a fraction, cv2's conversion."""


def pipe(uri: Uri, here: Here) -> Opened:
    """Bind a program; yields Frames. It is started again when it ends.

    ConfigError for the options, SourceError when the program is not installed.
    """
    # its arguments may hold an address with a password
    said = Uri(uri.scheme, f"{''.join(uri.rest.split()[:1])} …", uri.options)
    command = command_of(uri.rest, said)
    width, height = whole(said, KNOWN, "width", 1, 32768), whole(said, KNOWN, "height", 1, 32768)
    if not (width and height):
        raise ConfigError(f'"{said}": raw frames state no size; give width=W&height=H')
    layout = choice(said, KNOWN, "format", tuple(FORMATS))
    if (layout in ("yuv420p", "nv12", "yuyv422") and width % 2) or (layout in ("yuv420p", "nv12") and height % 2):
        raise ConfigError(f'"{said}": {layout} needs an even width and height')
    believed = rules(said, KNOWN)
    fps = number(said, KNOWN, "fps", 0.001, 1000)

    def open_() -> StreamReader:
        return _start(command, width, height, layout, fps)

    return Opened(run=lambda stop: watch(open_, believed, stop), yields=Frame, live=True)


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
    raw = np.frombuffer(buffer, np.uint8)
    if code is None:
        return raw.reshape(height, width, 3)
    shape = (height * over // under, width) if under > 1 else (height, width, over)
    return bgr(cv2.cvtColor(raw.reshape(shape), code))
