"""``microphone:NAME``: a microphone by a part of its name, whatever its case; ``microphone:`` is the system's default.

Through PortAudio, so ALSA's devices, and what PulseAudio or PipeWire gives under ALSA's names. Options: ``rate`` and
``channels`` (else what the device likes best), ``stall``, ``pause``. One that is not there is waited for.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edge_agent.errors import ConfigError, SourceError, nearest
from edge_agent.sources import Here, Opened
from edge_agent.sources.feed import wait_for_readers
from edge_agent.sources.hear import BLOCK_S, SoundReader, hear
from edge_agent.sources.judge import RULES
from edge_agent.sources.resample import MOST_CHANNELS, RATES
from edge_agent.types import Audio, Floats
from edge_agent.uri import Uri, number, whole

KNOWN = {"rate": "", "channels": "", "stall": RULES["stall"], "pause": RULES["pause"]}
OTHERS = (48_000, 16_000, 44_100)
"""rates that are tried where a device refuses the one that it states"""
KEPT_S = 0.5
"""seconds of sound that the system keeps while nobody reads"""
PATIENCE = 20.0
"""seconds that one waits for another to open its microphone"""
BUSY, BAD_CHANNELS, BAD_RATE = -9985, -9998, -9997
"""PortAudio's numbers (portaudio.h) of what can go wrong"""

_opening = threading.Lock()
"""PortAudio is told to look for devices anew only while no stream is open, and by one thread at a time"""
_streams = 0
"""that are open; under the lock"""


def microphone(uri: Uri, here: Here) -> Opened:
    """Bind a microphone; yields Audio. ConfigError for an option, or where PortAudio is not installed."""
    _library()
    name, rate = uri.rest.strip(), whole(uri, KNOWN, "rate", *RATES)
    channels = whole(uri, KNOWN, "channels", 1, MOST_CHANNELS)
    stall, pause = number(uri, KNOWN, "stall", 0.1, 3600), number(uri, KNOWN, "pause", 0.5, 3600)

    def run(stop: threading.Event) -> Iterator[Any]:
        return hear(lambda: _opened(name, rate, channels), stop, stall=stall or 5.0, pause=pause or 30.0)

    return Opened(run=run, yields=Audio, live=True, about=lambda: _about(name))


def _library() -> Any:
    """PortAudio. ConfigError where it is not installed."""
    try:
        import sounddevice
    except ImportError:
        raise ConfigError("microphones need the package sounddevice; `pip install sounddevice`") from None
    except OSError:
        raise ConfigError("microphones need the library PortAudio; `apt install libportaudio2`") from None
    # asked for behind the package's own, so it runs before that ends PortAudio: a stream that is still read then, or
    # just being closed by its thread, takes the process with it
    atexit.unregister(wait_for_readers)
    atexit.register(wait_for_readers)
    return sounddevice


@contextmanager
def _alone() -> Iterator[Any]:
    """PortAudio, with the devices that are there now, for one thread at a time. SourceError."""
    if not _opening.acquire(timeout=PATIENCE):
        raise SourceError("the sound system does not answer while another microphone is opened; unplug that one")
    try:
        library = _library()
        if not _streams:
            # it lists the devices once, when it is initialised
            library._terminate()
            library._initialize()
        yield library
    except _library().PortAudioError as error:
        raise SourceError(f"the sound system fails: {_why(error)}") from None
    finally:
        _opening.release()


def _about(name: str) -> str:
    """What would be opened now, one line."""
    try:
        with _alone() as library:
            found = chosen(name, _microphones(library), _default(library))
        return f"{found['name']}: {found['default_samplerate']:.0f} Hz, {found['max_input_channels']} channels"
    except SourceError as error:
        return f"{error}; it is waited for"


def _microphones(library: Any) -> list[dict[str, Any]]:
    return [device for device in library.query_devices() if device["max_input_channels"] > 0]


def _default(library: Any) -> str:
    """The name of the system's default microphone; empty where it has none."""
    try:
        return str(library.query_devices(kind="input")["name"])
    except (library.PortAudioError, ValueError):
        return ""


def chosen(name: str, devices: list[dict[str, Any]], default: str) -> dict[str, Any]:
    """The device that a name means. SourceError, with what is there, for none and for several."""
    names = [str(device["name"]) for device in devices]
    if not names:
        raise SourceError("there is no microphone here; plug one in, and see that this user is in the group audio")
    wanted = name.casefold()
    if wanted in ("", "default") and wanted not in names:
        wanted = default.casefold()
    found = _matching(wanted, devices)
    if len(found) == 1:
        return found[0]
    listed = ", ".join(f'"{each}"' for each in names)
    if found:
        raise SourceError(f'"{name}" means {len(found)} of the microphones here ({listed}); write more of the name')
    near = nearest(name, names, {})
    hint = near if near.startswith("; did") else ""
    raise SourceError(f'there is no microphone "{name}"{hint or "; which one?"} Here are {listed}')


def _matching(wanted: str, devices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first device of this very name, else all that have it in theirs."""
    same = [device for device in devices if device["name"].casefold() == wanted]
    return same[:1] or [device for device in devices if wanted and wanted in device["name"].casefold()]


def _opened(name: str, rate: int, channels: int) -> SoundReader:
    """Open it as it likes best, or as is asked for. SourceError."""
    global _streams
    with _alone() as library:
        device = chosen(name, _microphones(library), _default(library))
        stream = _stream(library, device, rate, channels)
        _streams += 1
    block = max(1, round(stream.samplerate * BLOCK_S))

    def read() -> tuple[Floats, bool]:
        try:
            samples, lost = stream.read(block)
        except library.PortAudioError as error:
            raise SourceError(f"{device['name']}: is gone: {_why(error)}") from None
        return samples, lost

    def close() -> None:
        global _streams
        try:
            stream.close(ignore_errors=True)
        finally:
            with _opening:
                _streams -= 1

    told = f"{device['name']}, {stream.samplerate:.0f} Hz, {stream.channels} channel{'s' * (stream.channels > 1)}"
    return SoundReader(told, round(stream.samplerate), stream.channels, read, close)


def _stream(library: Any, device: dict[str, Any], rate: int, channels: int) -> Any:
    """A stream that has begun. SourceError."""
    most = min(MOST_CHANNELS, device["max_input_channels"])
    rates = [rate] if rate else list(dict.fromkeys((round(device["default_samplerate"]), *OTHERS)))
    counts = [channels] if channels else list(dict.fromkeys((min(2, most), 1, most)))
    why = ""
    for each, count in ((each, count) for count in counts for each in rates if RATES[0] <= each <= RATES[1]):
        try:
            wanted = {"device": device["index"], "samplerate": each, "channels": count, "dtype": "float32"}
            return _begun(library, wanted)
        except library.PortAudioError as error:
            why = _why(error)
            if error.args[1:2] not in ((BAD_RATE,), (BAD_CHANNELS,)):
                break
    raise SourceError(f"{device['name']}: cannot be opened: {why or 'none of its rates is taken'}")


def _begun(library: Any, wanted: dict[str, Any]) -> Any:
    """A stream that has begun, or PortAudio's error and none left open."""
    stream = library.InputStream(**wanted, latency=KEPT_S)
    try:
        stream.start()
    except library.PortAudioError:
        stream.close(ignore_errors=True)
        raise
    return stream


def _why(error: Exception) -> str:
    """What PortAudio says, and the system below it."""
    text, number_, below = (*error.args, None, None, None)[:3]
    if number_ == BUSY:
        return "it is busy, another program uses it, or it is gone"
    said = f"{text} ({below[2]})" if below else str(text)
    return " ".join(said.split()).removeprefix("Error opening InputStream: ")
