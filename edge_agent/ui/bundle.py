"""A bundle for a bug report: config, state, versions and log without secrets, and recordings that somebody ticked."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import zipfile
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from edge_agent import toml
from edge_agent.config.load import MOST_BYTES
from edge_agent.errors import EdgeAgentError
from edge_agent.redact import HIDDEN, redact
from edge_agent.registry import catalogue
from edge_agent.ui.calls import Ask, Call, Refused, Stream
from edge_agent.walk import recording

if TYPE_CHECKING:
    from edge_agent.ui.server import Page

LEAST_FREE, PART = 200_000_000, 1 << 18
"""bytes that the disk is to have left; that a bundle is sent in at once"""


class Recording(msgspec.Struct, frozen=True):
    """What `[samples] record` or `edge-agent record` kept."""

    name: str
    bytes: int


class Bundle:
    """What its calls do."""

    def __init__(self, page: Page, machine: Callable[[], object], log: Callable[[], list[str]]) -> None:
        """`machine`: the board and the process; `log`: its last lines."""
        self._page, self._machine, self._log = page, machine, log

    def recordings(self, ask: Ask | None = None) -> list[Recording]:
        """Those that are here, the newest first."""
        made = sorted(recording.parts(), reverse=True)
        return [Recording(one.name, sum(file.stat().st_size for file in one.rglob("*"))) for one in made]

    def bundle(self, ask: Ask) -> Response:
        """What a bug report needs, in one file, without secrets; recordings only as they are named. Refused."""
        names = self._named(ask.query("recordings"))
        made = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the answer)
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
            for name, text in self._about().items():
                file.writestr(name, redact(text))
            for name in names:
                _put_in(file, recording.place() / name)
        made.seek(0)
        answer = Stream(lambda: _parts(made), "application/zip")
        answer.headers["Content-Disposition"] = f'attachment; filename="edge-agent-{int(time.time())}.zip"'
        return answer

    def _named(self, given: str) -> list[str]:
        """The recordings that are asked for. Refused."""
        names = [name for name in given.split(",") if name]
        known = {one.name: one.bytes for one in self.recordings()} if names else {}
        for name in names:
            if name not in known:
                raise Refused(404, f'no recording "{name[:80]}" is here')
        if sum(known[name] for name in names) + LEAST_FREE > shutil.disk_usage(tempfile.gettempdir()).free:
            raise Refused(507, "the disk has no room for that bundle; leave recordings out, and copy them by hand")
        return names

    def _about(self) -> dict[str, str]:
        """Name of a file of the bundle -> what it holds."""
        agent = self._page.now
        parts: dict[str, object] = {
            "machine.json": self._machine(),
            "state.json": self._page.state(),
            "health.json": agent.state.health(),
            "models.json": catalogue.listing(),
            "config.json": self._config(),
            "versions.json": _versions(),
        }
        found = {name: json.dumps(msgspec.to_builtins(value), indent=1, default=str) for name, value in parts.items()}
        return {**found, "log.txt": "\n".join(self._log())}

    def _config(self) -> object:
        """The config as it is written, without what nobody else may read."""
        if self._page.config_file is None:
            return {}
        try:
            table: object = toml.parse(toml.read_text(self._page.config_file, MOST_BYTES))
        except (EdgeAgentError, OSError) as error:
            return {"error": str(error)}
        return without_secrets(table)


def _put_in(file: zipfile.ZipFile, folder: Path) -> None:
    """A recording into a bundle, as it is: its pictures are packed already."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            packed = zipfile.ZIP_STORED if path.suffix == ".png" else zipfile.ZIP_DEFLATED
            file.write(path, f"recordings/{path.relative_to(folder.parent)}", packed)


async def _parts(file: IO[bytes]) -> AsyncGenerator[bytes, None]:
    """A file, which is closed then."""
    try:
        while part := await run_in_threadpool(file.read, PART):
            yield part
    finally:
        file.close()


SECRET = ("password", "token", "secret", "username", "headers", "key")
"""what a key of a config is called that holds what nobody else may read; of files only the names stand there"""


def without_secrets(value: object, key: str = "") -> object:
    """A config's table with users, passwords and tokens taken out, also of addresses and programs."""
    if isinstance(value, dict):
        return {name: without_secrets(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_secrets(inner, key) for inner in value]
    if not isinstance(value, str):
        return value
    if any(word in key for word in SECRET) and not key.endswith("_file"):
        return HIDDEN
    return f"{value.split()[0].partition('?')[0]} {HIDDEN}" if value.startswith("pipe:") else redact(value)


def _versions() -> dict[str, str]:
    from importlib.metadata import distributions

    return {one.metadata["Name"]: one.version for one in distributions() if one.metadata["Name"]}


def calls(page: Page, machine: Callable[[], object], log: Callable[[], list[str]]) -> list[Call]:
    """Those of the bundle."""
    bundle = Bundle(page, machine, log)
    return [
        Call("GET", "/api/v1/recordings", "admin", "Recordings of what pipelines were given.", bundle.recordings,
             list[Recording]),
        Call("GET", "/api/v1/bundle", "admin", "What a bug report needs, as ZIP, without secrets.", bundle.bundle,
             media="application/zip",
             query={"recordings": "names of those that it holds, with commas between; none unless named"}),
    ]  # fmt: skip
