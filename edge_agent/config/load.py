"""A config file: read, checked, and what is to be said of it."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_agent import toml
from edge_agent.config.check import checked
from edge_agent.config.sections import Config, Pipeline, level
from edge_agent.errors import ConfigError, EdgeAgentError, ManifestError, SourceError
from edge_agent.files import others_may, read_regular
from edge_agent.redact import HIDDEN, redact
from edge_agent.uri import NETWORK, parse_uri

log = logging.getLogger("edge_agent")

MOST_BYTES = 1_000_000
"""of a config file"""
MOST_SECRET = 64_000
"""bytes of a file that holds a secret"""
MEANT = {
    "id": "name device",
    "name": "id",
    "threads": "device",
    "host": "url mqtt",
    "server": "url mqtt",
    "broker": "url mqtt",
    "port": "url",
    "url": "source mqtt url_file",
    "tls": "ca",
    "cafile": "ca",
    "ca_file": "ca",
    "certfile": "cert",
    "user": "username",
    "key": "key_file",
    "api_key": "key_file",
    "webhook": "notify",
    "alert": "notify",
    "password": "password_file",
    "topic": "prefix",
    "path": "source store",
    "size": "max_bytes",
    "camera": "source pipeline",
    "input": "source",
    "stream": "source",
    "task": "tasks",
    "model": "tasks",
    "detector": "tasks",
    "interval": "report",
    "qos": "class",
    "zone": "in",
    "time": "between",
    "weekday": "days",
    "weekdays": "days",
    "delay": "for",
    "duration": "for",
    "conditions": "when all",
    "condition": "when",
    "trigger": "when",
    "if": "when",
    "and": "all",
    "or": "any",
    "none": "not",
    "line": "crosses",
    "person": "object",
    "count": "above",
}
"""what people call a key or section -> what it may be here (see `nearest`)"""
OUR_OPTIONS = {"fps", "stall", "dark", "frozen", "pause"}
"""options of these, which stand behind a #"""


def load(path: str | Path, pipelines: bool = True, shared: Path | None = None) -> Config:
    """Read and check a config file; `pipelines`: it is to have some; `shared` as of `parse`.

    Relative paths in it are relative to the file. Raises ConfigError: one line with the file, the key and the mend.
    """
    path = Path(path)
    with of(path):
        text, real = toml.read_text(path, MOST_BYTES), path.resolve()
        _refuse_a_stranger_s(real)
        config = parse(text, base=real.parent, pipelines=pipelines, shared=shared)
    _warn_of_readers(real, config)
    return config


def _refuse_a_stranger_s(path: Path) -> None:
    """ConfigError for a file that others may change: it starts programs (``pipe:``, ``their.module:``)."""
    for place, what in ((path, "it"), (path.parent, "its folder")):
        if others_may(place)[1]:
            mode = f"mode {place.stat().st_mode & 0o7777:04o}"
            raise ConfigError(f"others may write {what} ({mode}), and it says what runs here; chmod go-w {place}")


def _warn_of_readers(path: Path, config: Config) -> None:
    """Say which secrets others on this machine may read, and which files of the broker's they may replace, as ssh
    does.
    """
    mqtt = config.mqtt
    inside = any(HIDDEN in redact(pipe.source) for pipe in config.pipeline)
    secrets = {"mqtt.password_file": mqtt.password_file, "mqtt.key": mqtt.key, "a source's password": inside and path}
    secrets |= {f"notify {one.name}: url_file": one.url_file for one in config.notify}
    secrets["opinion.key_file"] = config.opinion.key_file if config.opinion else None
    for what, where in {**secrets, "mqtt.ca": mqtt.ca, "mqtt.cert": mqtt.cert}.items():
        if not where or str(where).startswith("credential:"):
            continue
        with contextlib.suppress(OSError):  # what is not there is said where it is needed
            if danger := _danger(Path(where), what in secrets):
                log.warning("%s: %s can be %s", path, what, danger)


def _danger(place: Path, secret: bool) -> str:
    """What others may do to a file and what to do about it; "" when nothing. Raises OSError."""
    read, write = others_may(place)
    if write or (read and secret):
        return f"{'written' if write else 'read'} by others; chmod g-w,o-rwx {place}"
    return f"replaced by others; chmod go-w {place.parent}" if others_may(place.parent)[1] else ""


@contextlib.contextmanager
def of(path: str | Path) -> Iterator[None]:
    """What goes wrong within is the doing of this config: its errors name the file, and what can never work as it is
    written there ends with the exit code of a wrong config.
    """
    try:
        yield
    except EdgeAgentError as error:
        wrong = isinstance(error, ConfigError | SourceError | ManifestError)
        raise (ConfigError if wrong else type(error))(f"{path}: {error}") from None


def parse(text: str, base: Path | None = None, pipelines: bool = True, shared: Path | None = None) -> Config:
    """Check a config's text, with what it follows; `base` is the folder that its relative paths start from.

    `shared`: the folder of a shared config that it is to follow, in place of that which serves.
    """
    table, base = toml.parse(text), base or Path.cwd()
    config = checked(toml.convert(table, Config, MEANT), base, table)
    if shared is not None or config.update is not None:
        from edge_agent.config.shared import with_shared

        config = with_shared(config, base, table, shared)
    if pipelines and not config.pipeline:
        raise ConfigError("no [[pipeline]]; add one with name and source")
    return config


def broker_part(path: Path) -> Config | None:
    """Device and broker of a config that is wrong elsewhere; None where these are wrong, too, or no broker is named."""
    try:
        config = part(path, "device", "mqtt")
    except (EdgeAgentError, OSError):
        return None
    return config if config.mqtt.url is not None else None


def part(path: Path, *sections: str) -> Config:
    """These sections of a config file alone, whatever stands in the others. ConfigError."""
    with of(path):
        table = toml.parse(toml.read_text(path, MOST_BYTES))
        kept: dict[str, Any] = {key: table[key] for key in sections if key in table}
        return checked(toml.convert(kept, Config, MEANT), path.resolve().parent, kept)


def warnings(pipe: Pipeline) -> list[str]:
    """What is no mistake, but may be meant otherwise; each one line that names the pipeline and the key."""
    told = []
    uri = parse_uri(pipe.source)
    address, mark, _ = pipe.source.partition("://")
    if mark and uri.scheme in (*NETWORK, "ffmpeg"):
        query = uri.rest.partition("?")[2]
        ours = sorted({pair.partition("=")[0] for pair in query.split("&")} & OUR_OPTIONS - set(uri.options))
        if ours:
            named = ", ".join(ours)
            told.append(
                f"pipeline {pipe.name}: source: {named} stands behind ?, so it is for the camera; our own options "
                f"stand behind #, as in {address}://…#{ours[0]}=…"
            )
    path = Path(uri.rest)
    if uri.scheme == "lines" and uri.rest != "-" and not path.exists():
        told.append(f"pipeline {pipe.name}: source: {path} is not there yet; it is waited for")
    return told


def dotted(config: Config) -> list[str]:
    """What is to be said of names with a dot, a line each."""
    names = [("device.id", config.device.id), *(("pipeline", pipe.name) for pipe in config.pipeline)]
    mapped = [(what, name) for what, name in names if "." in name]
    why = "in topics, since NATS and RabbitMQ read a dot as the end of a level; events keep the name"
    told = [f'{what} "{name}" is written {level(name)} {why}' for what, name in mapped]
    prefix = config.mqtt.prefix
    return told + [f'mqtt.prefix "{prefix}": to NATS and RabbitMQ its dot ends a level'] * ("." in prefix)


def secret(where: str, key: str) -> str:
    """Read a secret from a file or from ``credential:NAME``. ConfigError, which names `key`, when it cannot be had."""
    if where.startswith("credential:"):
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        if not folder:
            raise ConfigError(f"{key}: {where}: no systemd credentials here; start as a service or give a file")
        path = Path(folder) / where.removeprefix("credential:")
    else:
        path = Path(where)
    try:
        return read_regular(path, MOST_SECRET).decode("utf-8-sig").rstrip("\r\n")
    except OSError as error:
        mend = "check the path, its owner and mode"
        raise ConfigError(f"{key}: {path} cannot be read ({error.strerror}); {mend}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{key}: {path} holds other bytes than UTF-8; save it as UTF-8") from None


def store_path(config: Config) -> Path:
    """Where the events wait: as configured, else under systemd's state folder, else under the user's."""
    if config.store.path:
        return Path(config.store.path)
    if state := os.environ.get("STATE_DIRECTORY"):
        return Path(state.split(":")[0]) / "outbox"
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "edge-agent" / config.device.id
