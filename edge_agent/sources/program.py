"""Another program whose standard output is read: in a process group of its own, which ends with it."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import select
import shlex
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import IO

from edge_agent.errors import ConfigError, SourceError
from edge_agent.programs import which
from edge_agent.sources.feed import TICK
from edge_agent.uri import Uri

PIPE = 1 << 16
"""bytes that a pipe holds, so that their writer does not wait (pipe(7))"""
FAREWELL = 1.0
"""seconds that a program is given to end by itself"""
LISTEN = 1.0
"""seconds between looks whether anybody still wants to know what a program complains about"""


def command_of(text: str, said: Uri) -> list[str]:
    """The program, by its whole path, and its arguments. ConfigError, SourceError when it is not installed."""
    try:
        command = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f'"{said}": the command cannot be split ({error}); close each quote') from None
    if not command:
        raise ConfigError(f'"{said}": give a command')
    found = which(command[0])
    if found is None:
        raise SourceError(f"pipe: {command[0]} is not installed, or not on the PATH; check how it is written")
    return [found, *command[1:]]


class Program:
    """A program that was started. `fill` reads; `close` ends its whole group, and is called by the thread that reads.

    It is killed with the thread that starts it, so also where the agent is killed; what it started itself is not.
    """

    def __init__(
        self,
        command: list[str],
        environ: dict[str, str] | None = None,
        gone: threading.Event | None = None,
        given: bytes = b"",
    ) -> None:
        """Start it. SourceError where that cannot be done. `gone`: nobody wants more once it is set.

        `given`: all that it reads on stdin, at most PIPE bytes.
        """
        self.name = command[0]
        try:
            self._program = subprocess.Popen(
                [*_tied(), *command],
                stdin=subprocess.PIPE if given else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env=environ,
            )
        except OSError as error:
            raise SourceError(f"{command[0]}: cannot be started ({error.strerror})") from None
        if self._program.stdin is not None:
            # one that has ended says so itself
            with contextlib.suppress(OSError), self._program.stdin as stdin:
                stdin.write(given[:PIPE])
        assert self._program.stdout is not None
        self._out = self._program.stdout
        # a frame is megabytes, a pipe 64 KiB; the system may allow no more to this user
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._out.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)
        self._gone, self._closed, self._last_words = gone or threading.Event(), threading.Event(), bytearray()
        told = (self._program.stderr, self._last_words, self._closed)
        self._listener = threading.Thread(target=_listen, args=told, daemon=True, name="stderr")
        self._listener.start()

    def fill(self, buffer: bytearray, patience: float = math.inf) -> int:
        """Fill the buffer; fewer bytes than it has when the program closed its end, wrote nothing for `patience`
        seconds, or after `abort`.
        """
        poller = select.poll()
        poller.register(self._out.fileno(), select.POLLIN)
        view, got, came = memoryview(buffer), 0, time.monotonic()
        while got < len(buffer) and not self._gone.is_set():
            if poller.poll(1000 * TICK):
                count = os.readv(self._out.fileno(), [view[got:]])
                if not count:
                    break
                got, came = got + count, time.monotonic()
            elif time.monotonic() - came > patience:
                break
        return got

    def ready(self, seconds: float) -> bool:
        """Whether it has written something, or has ended, within so many seconds."""
        return bool(select.select([self._out.fileno()], [], [], seconds)[0])

    def read(self, most: int) -> bytes | None:
        """What it has written, at most so many bytes: None where nothing came within TICK, b"" at its end."""
        if not self.ready(TICK):
            return None
        return os.read(self._out.fileno(), most)

    def complaint(self) -> str:
        """The last line that it complained with so far."""
        said = [line.strip() for line in bytes(self._last_words).decode(errors="replace").splitlines() if line.strip()]
        return said[-1][-200:] if said else ""

    def obituary(self) -> str:
        """How it ended, and the last line of what it complained about."""
        try:
            code = self._program.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            return "closed its output"
        self._listener.join(FAREWELL)
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit status {code}"
        return f"{how}: {said}" if (said := self.complaint()) else how

    def abort(self) -> None:
        """Ask it to end; a `fill` that waits returns. Of any thread."""
        self._gone.set()
        self._end(signal.SIGTERM)

    def close(self) -> None:
        """End it, and what it has started."""
        self._end(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._program.wait(FAREWELL)
        # also what it has started
        self._end(signal.SIGKILL)
        self._program.wait()
        self._out.close()
        self._closed.set()

    def _end(self, number: int) -> None:
        """Signal the program's whole group, if there is one left."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._program.pid, number)


def _tied() -> list[str]:
    """What ties a program to the thread that starts it (PR_SET_PDEATHSIG, which is called after a fork, where Python
    must not run in a process with threads): setpriv of util-linux; nothing, where it is not installed.
    """
    path = which("setpriv")
    return [path, "--pdeathsig", "KILL", "--"] if path and Path(path).resolve().name == "setpriv" else []


def _listen(stream: IO[bytes], last_words: bytearray, closed: threading.Event) -> None:
    """Keep the end of what the program complains about; unread, it would block the program.

    Until its end, or until `closed`, as what the program has started may hold the pipe for ever.
    """
    poller = select.poll()
    poller.register(stream, select.POLLIN)
    with stream:
        while not closed.is_set():
            if not poller.poll(1000 * LISTEN):
                continue
            if not (chunk := os.read(stream.fileno(), 4096)):
                return
            last_words += chunk
            del last_words[:-500]
