"""An address becomes samples: cameras, files, lines, pipes, topics.

A new source is one file with one function ``NAME(uri, here) -> Opened`` and one row of SCHEMES; somebody else's
is written ``theirpkg.module:attr:rest`` in the config.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import TypeAlias

import msgspec

from edge_agent.errors import ConfigError, EdgeAgentError, nearest
from edge_agent.types import Audio, Frame, Sample, StreamState, Text
from edge_agent.uri import Uri

log = logging.getLogger("edge_agent")

Subscribe: TypeAlias = Callable[[str, Callable[[str, bytes], bool]], object]
"""(topic filter, on_message(topic, payload) -> whether it is taken). on_message is called on the link's thread; what
is not taken is not acknowledged, so the broker gives it again after the next connect."""


class Here(msgspec.Struct, frozen=True):
    """What the agent lends to a source."""

    subscribe: Subscribe | None = None
    """None when no broker is configured"""
    resume_at: int | None = None
    """the last Text.mark that was dealt with, to go on from"""


class Opened(msgspec.Struct, frozen=True):
    """A source bound to its address. Nothing is read before `run` is iterated."""

    run: Callable[[threading.Event], Iterator[Sample | StreamState]]
    """yields until the source ends or the event is set, and then what it took and can never take again; raises
    SourceError when it ended for good"""
    yields: type[Frame] | type[Text] | type[Audio]
    """lets the chain of tasks be checked before anything starts"""
    live: bool
    """True: the newest sample wins; False: every sample is to be answered"""
    left: Callable[[], int] = lambda: 0
    """samples that it took, can never take again and has not yielded"""
    about: Callable[[], str] = lambda: ""
    """what it would open now, one line for people, where it can tell"""


SCHEMES: dict[str, str] = {
    "files": "edge_agent.sources.files:files",
    "camera": "edge_agent.sources.camera:camera",
    "rtsp": "edge_agent.sources.camera:rtsp",
    "rtsps": "edge_agent.sources.camera:rtsp",
    "http": "edge_agent.sources.mjpeg:http",
    "https": "edge_agent.sources.mjpeg:http",
    "microphone": "edge_agent.sources.microphone:microphone",
    "pipe": "edge_agent.sources.pipe:pipe",
    "ffmpeg": "edge_agent.sources.ffmpeg:ffmpeg",
    "rpicam": "edge_agent.sources.presets:preset",
    "jetson": "edge_agent.sources.presets:preset",
    "lines": "edge_agent.sources.lines:lines",
    "serial": "edge_agent.sources.serial:serial",
    "journal": "edge_agent.sources.journal:journal",
    "mqtt": "edge_agent.sources.mqtt:mqtt",
    "replay": "edge_agent.sources.replay:replay",
}

MEANT = {
    **dict.fromkeys(("webcam", "usb", "v4l2", "cam", "device"), "camera"),
    **dict.fromkeys(("file", "folder", "dir", "image", "images", "picture", "video", "glob", "wav"), "files"),
    **dict.fromkeys(("mic", "micro", "audio", "sound", "alsa", "pulse"), "microphone"),
    **dict.fromkeys(("text", "txt", "log", "tail", "stdin"), "lines"),
    **dict.fromkeys(("exec", "command", "gst", "gstreamer"), "pipe"),
    **dict.fromkeys(("csi", "picamera", "picam", "libcamera", "raspicam", "rpi"), "rpicam"),
    **dict.fromkeys(("argus", "nvargus", "nvarguscamerasrc"), "jetson"),
    **dict.fromkeys(("tty", "uart", "rs232", "com", "modem"), "serial"),
    **dict.fromkeys(("journald", "journalctl", "systemd", "syslog", "unit"), "journal"),
}
"""what people call a source -> what it is called here"""


def open_source(uri: Uri, *, subscribe: Subscribe | None = None, resume_at: int | None = None) -> Opened:
    """Check an address and bind it to its source.

    Raises ConfigError for an unknown scheme or a wrong option, SourceError for what can never be read (a missing
    path, a folder without pictures). A camera that is not there yet is no error: it is waited for.
    """
    where = uri.scheme if ":" in uri.scheme else SCHEMES.get(uri.scheme)
    if where is None:
        if "@" in uri.rest:
            raise ConfigError(f'"{uri}": an address begins with its scheme; write e.g. rtsp://… or http://…')
        raise ConfigError(f'there is no source "{uri.scheme}"{nearest(uri.scheme, SCHEMES, MEANT)}')
    module, _, attr = where.partition(":")
    try:
        bind: Callable[[Uri, Here], Opened] = getattr(importlib.import_module(module), attr)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f'source "{uri.scheme}" cannot be loaded ({error}); install what it needs') from None
    try:
        opened = bind(uri, Here(subscribe, resume_at))
    except EdgeAgentError:
        raise
    except Exception as error:
        if ":" not in uri.scheme:
            raise
        log.debug("", exc_info=True)
        raise ConfigError(
            f'source "{uri.scheme}" fails: {type(error).__name__}: {error}; ask those who made it'
        ) from None
    if not isinstance(opened, Opened):
        raise ConfigError(
            f'source "{uri.scheme}" gives a {type(opened).__name__}, not an Opened; ask those who made it'
        )
    if opened.yields not in (Frame, Text, Audio):
        raise ConfigError(
            f'source "{uri.scheme}" yields {opened.yields.__name__}, not Frame, Text or Audio; ask those who made it'
        )
    return opened
