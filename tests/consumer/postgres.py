"""A real PostgreSQL in a folder of its own, that a test can kill and start again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.broker import free_port

PLACES = os.pathsep.join([os.environ.get("PATH", ""), *map(str, Path("/usr/lib/postgresql").glob("*/bin"))])
USER = "postgres" if os.geteuid() == 0 else None
"""it does not run as root"""


class Server:
    """It listens on a socket in its folder, and on a port of 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        initdb, self.program = (shutil.which(name, path=PLACES) for name in ("initdb", "postgres"))
        if initdb is None or self.program is None:
            pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
        pytest.importorskip("pg8000", reason='needs pg8000: pip install "edge-agent-runtime[cloud]"')
        self.folder, self.port = folder, free_port()
        if USER:
            shutil.chown(folder, USER)
        told = ["-D", str(folder / "data"), "-U", "keeper", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run([initdb, *told], check=True, capture_output=True, user=USER, cwd="/")
        self.url = f"postgresql://keeper@127.0.0.1:{self.port}/postgres"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        # the kernel outlives a kill, so nothing has to be on the disk itself
        more = ["-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "timezone=UTC", "-c", "max_connections=40"]
        listens = ["-p", str(self.port), "-k", str(self.folder), "-c", "listen_addresses=127.0.0.1"]
        command = [str(self.program), "-D", str(self.folder / "data"), *listens, *more]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, user=USER, cwd="/", start_new_session=True)
        log.close()
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(Exception):
                self.ask("SELECT 1")
                return
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.05)

    def kill(self) -> None:
        """All its processes at once, as by a power cut to its memory."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def ask(self, sql: str, **more: Any) -> list[Any]:
        """Rows of a query."""
        import pg8000.native

        connection = pg8000.native.Connection(
            "keeper", host="127.0.0.1", port=self.port, database="postgres", timeout=60
        )
        try:
            return list(connection.run(sql, **more) or [])
        finally:
            connection.close()


@contextmanager
def server() -> Iterator[Server]:
    """One that is gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="edge-agent-pg-"))
    made: Server | None = None
    try:
        made = Server(folder)
        yield made
    finally:
        if made is not None and made.process is not None and made.process.poll() is None:
            made.kill()
        shutil.rmtree(folder, ignore_errors=True)
