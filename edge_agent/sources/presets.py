"""``rpicam:N`` and ``jetson:N``: cameras at the board's own connector, read by the maker's program.

Each is a row of PRESETS: the program, its arguments, and what to install where it is missing. Options: ``width``,
``height``, ``fps`` are asked of the camera; of rpicam ``format=mjpeg``; those of judge.RULES.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from edge_agent.errors import ConfigError, SourceError
from edge_agent.programs import which
from edge_agent.sources import Here, Opened
from edge_agent.sources.judge import RULES, rules
from edge_agent.sources.program import Program
from edge_agent.sources.raw import reader
from edge_agent.sources.watch import StreamReader, watch
from edge_agent.types import Frame
from edge_agent.uri import Uri, choice, whole

KNOWN = {"width": "1280", "height": "720", "fps": "30", "format": "", **RULES}
MOST_CAMERAS = 64
ROW = 64
"""pixels: rows of raw frames of a Raspberry Pi are padded to a multiple of it, and rpicam-vid writes them so"""


class Asked(NamedTuple):
    """What the camera is asked for."""

    number: int
    width: int
    height: int
    fps: int
    layout: str


def _rpicam(program: str, asked: Asked) -> list[str]:
    """The options of rpicam-vid, as its documentation gives them."""
    codec = "mjpeg" if asked.layout == "mjpeg" else "yuv420"
    size = ["--width", str(asked.width), "--height", str(asked.height), "--framerate", str(asked.fps)]
    # without a time limit, a window and a word for each frame
    quiet = ["--timeout", "0", "--nopreview", "--verbose", "0", "--flush"]
    return [program, "--camera", str(asked.number), *size, "--codec", codec, *quiet, "--output", "-"]


def _jetson(program: str, asked: Asked) -> list[str]:
    """A pipeline of GStreamer. Argus prints to stdout: the frames go to another descriptor, which becomes our pipe."""
    size = f"width={asked.width},height={asked.height},framerate={asked.fps}/1"
    steps = [
        f"nvarguscamerasrc sensor-id={asked.number}",
        f"video/x-raw(memory:NVMM),{size},format=NV12",
        "nvvidconv",
        "video/x-raw,format=I420",
        "queue leaky=downstream max-size-buffers=1",
        "y4menc",
        "fdsink fd=3 sync=false",
    ]
    words = " ! ".join(steps).split()
    return ["/bin/sh", "-c", 'exec "$@" 3>&1 1>&2', "sh", program, "-q", *words]


class Preset(NamedTuple):
    """One kind of camera."""

    programs: tuple[str, ...]
    """the first that is installed is taken"""
    install: str
    """what to do where none is"""
    layouts: tuple[str, ...]
    """of sources/raw.py; the first is the default"""
    command: Callable[[str, Asked], list[str]]


PRESETS = {
    "rpicam": Preset(
        ("rpicam-vid", "libcamera-vid"), "on a Raspberry Pi: sudo apt install rpicam-apps-lite",
        ("yuv420p", "mjpeg"), _rpicam,
    ),
    "jetson": Preset(
        ("gst-launch-1.0",),
        "on a Jetson: sudo apt install gstreamer1.0-tools gstreamer1.0-plugins-good nvidia-l4t-gstreamer",
        ("y4m",), _jetson,
    ),
}  # fmt: skip


def preset(uri: Uri, here: Here) -> Opened:
    """Bind a camera of PRESETS; yields Frames. ConfigError for the address, SourceError without its program."""
    row = PRESETS[uri.scheme]
    if not (uri.rest.isdecimal() and len(uri.rest) < 4 and int(uri.rest) < MOST_CAMERAS):
        raise ConfigError(f'"{uri}": give the number of a camera, as in {uri.scheme}:0')
    known = {**KNOWN, "format": row.layouts[0]}
    layout = choice(uri, known, "format", row.layouts)
    width, height = whole(uri, known, "width", 16, 16384), whole(uri, known, "height", 16, 16384)
    if width % 2 or height % 2:
        raise ConfigError(f'"{uri}": give an even width and height')
    if layout == "yuv420p" and width % ROW:
        near = f"{max(ROW, width // ROW * ROW)} or {width // ROW * ROW + ROW}"
        raise ConfigError(f'"{uri}": rows are padded to {ROW} pixels; give width={near}, or format=mjpeg')
    asked = Asked(int(uri.rest), width, height, whole(uri, known, "fps", 1, 1000), layout)
    believed = rules(uri, known)
    program = next(filter(None, map(which, row.programs)), None)
    if program is None:
        raise SourceError(f"{uri.scheme}: {row.programs[0]} is not installed; {row.install}")
    command = row.command(program, asked)

    def open_() -> StreamReader:
        return reader(Program(command), f"{uri.scheme}:{uri.rest}", layout, (width, height), 0)

    return Opened(run=lambda stop: watch(open_, believed, stop), yields=Frame, live=True)
