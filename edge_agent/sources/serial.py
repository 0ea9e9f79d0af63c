"""``serial:/dev/ttyUSB0?baud=9600``: lines from a serial port, through pyserial (extra ``serial``).

Options: ``parity`` (none, even, odd, mark, space), ``bits`` (5 to 8), ``stop`` (1, 1.5, 2). Lines are cut and read as
those of ``lines:`` are. A port that is not there, or goes away, is waited for.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from edge_agent.errors import ConfigError, SourceError
from edge_agent.sources import Here, Opened
from edge_agent.sources.fifo import TICK, Stream
from edge_agent.sources.splitter import Splitter
from edge_agent.sources.text import CONTROLS, cleaner
from edge_agent.types import StreamState, Text
from edge_agent.uri import Uri, choice, whole

KNOWN = {"baud": "9600", "parity": "none", "bits": "8", "stop": "1"}
PARITY = {"none": "N", "even": "E", "odd": "O", "mark": "M", "space": "S"}
PAUSE = 1.0
"""seconds between two attempts to open a port"""
JUDGED, NOISE = 64, 0.3
"""bytes after which they are judged, and the share of those that are no text from which they are noise: at a wrong baud
rate about half are; a text in another code has a few"""
NO_TEXT = {0xFFFD, *CONTROLS} - {*b"\r\n\x1b"}
"""characters that no text has; U+FFFD stands for bytes that are none"""

log = logging.getLogger("edge_agent")


def serial(uri: Uri, here: Here) -> Opened:
    """Bind a port; yields Texts. ConfigError for the address; SourceError where pyserial is not installed."""
    if not uri.rest.startswith("/"):
        raise ConfigError(f'"{uri}": give the path of a port, e.g. serial:/dev/ttyUSB0?baud=9600')
    settings = {
        "baudrate": whole(uri, KNOWN, "baud", 50, 4_000_000),
        "parity": PARITY[choice(uri, KNOWN, "parity", tuple(PARITY))],
        "bytesize": whole(uri, KNOWN, "bits", 5, 8),
        "stopbits": float(choice(uri, KNOWN, "stop", ("1", "1.5", "2"))),
    }
    try:
        from serial import Serial
    except ImportError:
        raise SourceError('serial: needs pyserial; pip install "edge-agent-runtime[serial]"') from None
    at = _Port(uri.rest, settings, Serial, Stream(uri.rest, cleaner(f"serial:{uri.rest}"), 0.0))
    return Opened(run=at.run, yields=Text, live=False, left=lambda: len(at.lines.once))


@dataclass(slots=True)
class _Port:
    """A port by its path, and how it is set."""

    path: str
    settings: dict[str, Any]
    make: Any
    """serial.Serial"""
    lines: Stream
    _seen: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=16))
    """bytes of each of the last reads, and how many of them are no text"""
    _noisy: bool = False

    def run(self, stop: threading.Event) -> Iterator[Text | StreamState]:
        """Lines until `stop` is set; then those that had come whole."""
        why = ""
        while not stop.is_set():
            try:
                # exclusive: two programs that read one port get half of the bytes each
                port = self.make(self.path, timeout=TICK, exclusive=True, **self.settings)
            except (OSError, ValueError) as error:
                if why != (why := self._why(error)):
                    yield StreamState("reconnecting", why)
                stop.wait(PAUSE)
                continue
            yield StreamState("ok")
            try:
                yield from self._read(port, stop)
            except OSError as error:
                why = f"{self.path}: was unplugged, or its driver failed ({error.strerror or error})"
                yield StreamState("reconnecting", why)
            finally:
                with contextlib.suppress(OSError):
                    port.close()

    def _why(self, error: Exception) -> str:
        """Why a port cannot be opened, and what to do about it."""
        code = getattr(error, "errno", None)
        known = {
            errno.ENOENT: "is not there; plug it in, or look for its name in /dev/serial/by-id",
            errno.EACCES: "this user may not open it; sudo usermod -aG dialout USER, and start anew",
            errno.EAGAIN: "another program has it; end that one (ModemManager takes new ports for a while)",
        }
        known[errno.EBUSY], known[errno.EPERM] = known[errno.EAGAIN], known[errno.EACCES]
        return f"{self.path}: {known.get(code or 0) or f'cannot be opened as it is set ({error})'}"

    def _read(self, port: Any, stop: threading.Event) -> Iterator[Text | StreamState]:
        """Lines of an open port. OSError when it is gone."""
        split, stopping = Splitter(), False
        self._seen.clear()
        try:
            while not stopping:
                stopping = stop.is_set()
                chunk = port.read(port.in_waiting if stopping else port.in_waiting or 1)
                if (noisy := self._is_noise(chunk)) != self._noisy:
                    self._noisy = noisy
                    rate = self.settings["baudrate"]
                    said = (
                        f"{self.path}: most of what comes is no text; is baud={rate} right, and parity, bits and stop?"
                    )
                    yield StreamState("stalled", said) if noisy else StreamState("ok")
                yield from self.lines.given(split.feed(chunk), stop)
        finally:
            if rest := split.rest():
                log.warning("%s: a line that has not ended is dropped (%d bytes)", self.path, len(rest[0][0]))

    def _is_noise(self, chunk: bytes) -> bool:
        """Whether the last bytes are noise, as far as is known."""
        if chunk:
            bad = sum(ord(character) in NO_TEXT for character in chunk.decode(errors="replace"))
            self._seen.append((len(chunk), bad))
        size = sum(count for count, _ in self._seen)
        return sum(bad for _, bad in self._seen) > NOISE * size if size >= JUDGED else self._noisy
