"""``pipe:COMMAND?width=W&height=H&format=F``: raw frames from the standard output of a program; with
``?format=s16&rate=R&channels=C``, or another of resample.FORMATS, raw sound.

For what cv2 cannot open: CSI cameras (rpicam-vid), GStreamer (gst-launch-1.0 … ! fdsink), ffmpeg; and recorders such as
arecord or pw-record. No shell: the command is split as a shell would split it, and quotes work. Further options of
frames: those of judge.RULES, ``fps=N``; ``format=y4m`` and ``mjpeg`` state their size; of sound: ``stall``, ``pause``.
"""

from __future__ import annotations

from pathlib import Path

from edge_agent.errors import ConfigError, SourceError
from edge_agent.sources import Here, Opened, resample
from edge_agent.sources.hear import BLOCK_S, SoundReader, hear
from edge_agent.sources.judge import RULES, rules
from edge_agent.sources.program import Program, command_of
from edge_agent.sources.raw import FORMATS, MEANT, STATED, reader
from edge_agent.sources.watch import StreamReader, watch
from edge_agent.types import Audio, Floats, Frame
from edge_agent.uri import Uri, choice, number, option, whole

KNOWN = {"width": "", "height": "", "format": "bgr24", "fps": "", **RULES}
KNOWN_OF_SOUND = {"format": "", "rate": "16000", "channels": "1", "stall": RULES["stall"], "pause": RULES["pause"]}

OF_SOUND = {f"{name}{end}": name for name in resample.FORMATS for end in ("", "le") if name + end != "u8le"}
"""names of raw sound, ffmpeg's among them -> resample's"""


def pipe(uri: Uri, here: Here) -> Opened:
    """Bind a program; yields Frames, or Audio. It is started again when it ends.

    ConfigError for the options, SourceError when the program is not installed.
    """
    # its arguments may hold an address with a password
    said = Uri(uri.scheme, f"{''.join(uri.rest.split()[:1])} …", uri.options)
    command = command_of(uri.rest, said)
    layout = _layout(said)
    if layout in OF_SOUND:
        return _sound(command, said, OF_SOUND[layout])
    size = _size(said, layout)
    believed = rules(said, KNOWN)
    fps = number(said, KNOWN, "fps", 0.001, 1000)

    def open_() -> StreamReader:
        return reader(Program(command), command[0], layout, size, fps)

    return Opened(run=lambda stop: watch(open_, believed, stop), yields=Frame, live=True)


def _layout(said: Uri) -> str:
    """The format, by its own name. ConfigError."""
    known = {**KNOWN_OF_SOUND, **KNOWN}
    given = option(said, known, "format").lower()
    meant = Uri(said.scheme, said.rest, {**said.options, "format": MEANT.get(given, given)})
    return choice(meant, known, "format", (*FORMATS, *STATED, *OF_SOUND))


def _size(said: Uri, layout: str) -> tuple[int, int]:
    """Width and height of raw frames; (0, 0) for a format that states them. ConfigError."""
    width, height = whole(said, KNOWN, "width", 1, 32768), whole(said, KNOWN, "height", 1, 32768)
    if layout in STATED:
        if width or height:
            raise ConfigError(f'"{said}": {layout} states its size; leave width and height out')
        return 0, 0
    if not (width and height):
        raise ConfigError(f'"{said}": raw frames state no size; give width=W&height=H')
    if (layout in ("yuv420p", "nv12", "yuyv422") and width % 2) or (layout in ("yuv420p", "nv12") and height % 2):
        raise ConfigError(f'"{said}": {layout} needs an even width and height')
    return width, height


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
