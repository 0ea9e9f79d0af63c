"""The config: TOML in, frozen structs out. The unit of each field stands in its docstring.

Secrets never stand in the file: it names a file that holds one, or a systemd credential
(``password_file = "credential:mqtt"`` reads ``$CREDENTIALS_DIRECTORY/mqtt``).
"""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

import msgspec

from edge_agent import toml
from edge_agent.errors import ConfigError, EdgeAgentError, ManifestError, SourceError, nearest
from edge_agent.events import AnyEvent, GapEvent, kind_of
from edge_agent.files import others_may, read_regular
from edge_agent.redact import HIDDEN, redact
from edge_agent.toml import PREFIX, REPORT, Name
from edge_agent.uri import NETWORK, Uri, parse_uri

log = logging.getLogger("edge_agent")

MOST_BYTES = 1_000_000
"""of a config file"""
MOST_SECRET = 64_000
"""bytes of a file that holds a secret"""


def level(name: str) -> str:
    """A device's or a pipeline's name as it stands in topics: NATS and RabbitMQ read a dot as the end of a level."""
    return name.replace(".", "_")


RESERVED = ("agent", "status", "health", "cmd", "reply", "ack")
"""Pipeline names that would collide with topics of the device itself."""

_LEVELS = "1 to 3 topic levels without + # or spaces"
_REPORTS = '"changes", "every" or "summary:10s"'
Text = Annotated[str, msgspec.Meta(min_length=1)]
CLASSES = ("alert", "telemetry")
EVENT_KINDS = tuple(kind_of(event) for event in get_args(AnyEvent) if event is not GapEvent)
"""of events; gaps are alerts always"""

MEANT = {
    "id": "name device",
    "name": "id",
    "threads": "device",
    "host": "url mqtt",
    "server": "url mqtt",
    "broker": "url mqtt",
    "port": "url",
    "url": "source mqtt",
    "tls": "ca",
    "cafile": "ca",
    "ca_file": "ca",
    "certfile": "cert",
    "user": "username",
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
}
"""what people call a key or section -> what it may be here (see `nearest`)"""
OUR_OPTIONS = {"fps", "stall", "dark", "frozen", "pause"}
"""options of these, which stand behind a #"""


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[device]``."""

    id: Name = "edge"
    """name in topics and event ids; the host's name when the config has none"""
    threads: Annotated[int, msgspec.Meta(ge=0, le=256)] = 0
    """cores that the models may use together; 0: those that the process may run on"""


class Mqtt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[mqtt]``. Without a url nothing is sent, and events wait in the store."""

    url: Annotated[str, msgspec.Meta(examples=["mqtt://broker.local"])] | None = None
    """mqtt://host[:1883], mqtts://host[:8883], or over WebSockets ws://host[:80]/path, wss://host[:443]/path"""
    prefix: Annotated[str, msgspec.Meta(pattern=PREFIX, description=_LEVELS)] = "edge/v1"
    """1 to 3 topic levels before the device's id"""
    username: Text | None = None
    password_file: Text | None = None
    """path, or credential:NAME"""
    ca: Text | None = None
    """PEM of the authority that signed the broker's certificate; the system's own otherwise"""
    cert: Text | None = None
    """PEM of the device's certificate (mTLS)"""
    key: Text | None = None
    """PEM of its private key"""
    ack: bool = False
    """true: an alert stays in the store until a consumer acknowledges it on PREFIX/DEVICE/ack"""
    signers: str | None = None
    """PEM of Ed25519 public keys: acknowledgements and commands count only if one of them signed them"""
    keepalive: Annotated[int, msgspec.Meta(ge=2, le=3600)] = 15
    """seconds; a silent network is noticed after about one and a half of these"""
    longest_pause_s: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 30.0
    """seconds, longest pause before it connects again: pauses begin with less than half a second and double, each with
    jitter"""


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[store]``: where events wait."""

    path: Text | None = None
    """folder; $STATE_DIRECTORY/outbox under systemd, else ~/.local/state/edge-agent/DEVICE"""
    max_bytes: Annotated[int, msgspec.Meta(ge=1_000_000, le=10**15)] = 256_000_000
    """bytes on disk; when full the oldest telemetry goes first, then the oldest alerts, declared by a gap event"""
    max_events: Annotated[int, msgspec.Meta(ge=1000, le=10**12)] | None = None
    """events that may wait on disk, beside max_bytes; what goes then, goes as for max_bytes; no bound, when absent"""
    expire_hours: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    """events that waited longer are dropped, declared by a gap event; never, when absent"""
    bytes_per_day: Annotated[int, msgspec.Meta(ge=10_000, le=10**15)] | None = None
    """bytes that may be sent a day (UTC); the last fifth of them is kept for alerts, repeats of telemetry are folded
    while telemetry waits; no bound, when absent"""


class Pipeline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[pipeline]]``: one source and what is done with what it yields."""

    name: Name
    source: Annotated[str, msgspec.Meta(min_length=1, examples=["camera:0"])]
    """scheme:rest?option=value, see the README's table"""
    tasks: Annotated[list[str], msgspec.Meta(examples=[["detect:detector"]])] = []
    """in order, e.g. "detect:detector"; none: the sample itself goes out"""
    report: Annotated[str, msgspec.Meta(pattern=REPORT, description=_REPORTS)] | None = None
    """changes: when the labels in view differ from those last reported; every: each result; summary:10s: the fullest
    of each 10 s; when absent, changes for live sources and every for others"""
    workers: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    """samples that are answered at once, each on its share of the cores; 1: one after the other, on all of them, each
    as fresh as can be: fewer answers, but sooner ones; 0: as was measured, where they come faster than one at a time
    can be answered"""
    isolate: bool = False
    """a camera of the network (http, https, rtsp, rtsps) is read and decoded in a process of its own, locked in"""
    cls: str | dict[str, str] = msgspec.field(default="alert", name="class")
    """alert: on disk before it counts; telemetry: on disk within a second. By kind of event: {text = "telemetry"},
    and what is not named is an alert"""

    def class_of(self, kind: str) -> str:
        """The class of an event of this kind."""
        return self.cls if isinstance(self.cls, str) else self.cls.get(kind, "alert")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    device: Device = Device()
    mqtt: Mqtt = Mqtt()
    store: Store = Store()
    pipeline: list[Pipeline] = []


def load(path: str | Path, pipelines: bool = True) -> Config:
    """Read and check a config file; `pipelines`: it is to have some.

    Relative paths in it are relative to the file. Raises ConfigError: one line with the file, the key and the mend.
    """
    path = Path(path)
    with of(path):
        text, real = toml.read_text(path, MOST_BYTES), path.resolve()
        _refuse_a_stranger_s(real)
        config = parse(text, base=real.parent, pipelines=pipelines)
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
    for what, where in {**secrets, "mqtt.ca": mqtt.ca, "mqtt.cert": mqtt.cert}.items():
        if not where or str(where).startswith("credential:"):
            continue
        with contextlib.suppress(OSError):  # what is not there is said where it is needed
            place = Path(where)
            read, write = others_may(place)
            if write or (read and what in secrets):
                how = "written" if write else "read"
                log.warning("%s: %s can be %s by others; chmod g-w,o-rwx %s", path, what, how, place)
            elif others_may(place.parent)[1]:
                log.warning("%s: %s can be replaced by others; chmod go-w %s", path, what, place.parent)


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


def parse(text: str, base: Path | None = None, pipelines: bool = True) -> Config:
    """Check a config's text; `base` is the folder that its relative paths start from."""
    table = toml.parse(text)
    config = toml.convert(table, Config, MEANT)
    if pipelines and not config.pipeline:
        raise ConfigError("no [[pipeline]]; add one with name and source")
    return _checked(config, base or Path.cwd(), table)


def _checked(config: Config, base: Path, table: dict[str, Any]) -> Config:
    """What the types alone cannot say: names that differ, URIs that parse, paths made absolute."""
    if "id" not in table.get("device", {}):
        import socket

        host = re.sub(r"[^A-Za-z0-9_.\-]", "-", socket.gethostname())[:64].lstrip("-._") or "edge"
        config = msgspec.structs.replace(config, device=msgspec.structs.replace(config.device, id=host))
    seen: set[str] = set()
    for i, pipe in enumerate(config.pipeline):
        if level(pipe.name) in seen:
            dots = " (in topics, where a dot is written _)" if "." in "".join(p.name for p in config.pipeline) else ""
            raise ConfigError(f'pipeline[{i}].name: "{pipe.name}" stands twice{dots}; give each its own name')
        if pipe.name in RESERVED:
            raise ConfigError(f'pipeline[{i}].name: "{pipe.name}" is a topic of the device itself; choose another')
        seen.add(level(pipe.name))
        for kind, cls in pipe.cls.items() if isinstance(pipe.cls, dict) else [("", pipe.cls)]:
            for given, known in ((kind or EVENT_KINDS[0], EVENT_KINDS), (cls, CLASSES)):
                if given not in known:
                    raise ConfigError(f'pipeline[{i}].class: "{given}" is none{nearest(given, known)}')
        for key, text in (("source", pipe.source), *(("tasks", task) for task in pipe.tasks)):
            try:
                if not text.strip():
                    raise ConfigError(
                        f'"" names none; write e.g. "{"camera:0" if key == "source" else "detect:detector"}"'
                    )
                parse_uri(text if key == "source" or ":" in text else f"{text}:")
            except ConfigError as error:
                raise ConfigError(f"pipeline[{i}] ({pipe.name}): {key}: {error}") from None
    mqtt = checked_mqtt(config.mqtt, base)
    store = config.store
    if store.path is not None:
        store = msgspec.structs.replace(store, path=_path("store.path", store.path, base))
    pipes = [
        msgspec.structs.replace(
            pipe, source=_based(pipe.source, base), tasks=[_task_based(task, base) for task in pipe.tasks]
        )
        for pipe in config.pipeline
    ]
    return msgspec.structs.replace(config, mqtt=mqtt, store=store, pipeline=pipes)


def checked_mqtt(mqtt: Mqtt, base: Path) -> Mqtt:
    """What goes together in it, and its paths made absolute. ConfigError."""
    if mqtt.url is not None:
        secure = parse_broker(mqtt.url).secure
        unused = [key for key in ("ca", "cert", "key") if getattr(mqtt, key) is not None and not secure]
        if unused:
            scheme = mqtt.url.partition(":")[0]
            mend = f"{scheme}:// is not encrypted, and would not use it; write {scheme}s://"
            raise ConfigError(f"mqtt.{unused[0]}: {mend}")
    if (mqtt.cert is None) != (mqtt.key is None):
        raise ConfigError("mqtt: cert and key come together; give both or none")
    if mqtt.password_file and not mqtt.username:
        raise ConfigError("mqtt.password_file: needs mqtt.username beside it")
    return msgspec.structs.replace(
        mqtt,
        **{
            key: _path(f"mqtt.{key}", value, base)
            for key in ("ca", "cert", "key", "password_file", "signers")
            if (value := getattr(mqtt, key)) is not None and not value.startswith("credential:")
        },
    )


def _path(what: str, given: str, base: Path) -> str:
    """A path of the config made absolute. ConfigError where it cannot be one."""
    try:
        if "\0" in given:
            raise ValueError("a path holds no NUL")
        return str(base / Path(given).expanduser())
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f'{what}: "{given}": {str(error).rstrip(".")}; write a path from /') from None


def _text(what: str, uri: Uri) -> str:
    """A URI as text. ConfigError where its path would be read as options."""
    if parse_uri(str(uri)) != uri:
        raise ConfigError(f'{what}: "{uri}": the folder\'s name reads as options; rename it')
    return str(uri)


def _based(source: str, base: Path) -> str:
    """A source of files with its path made absolute."""
    uri = parse_uri(source)
    if uri.scheme not in ("files", "lines") or uri.rest in ("-", ""):
        return source
    if uri.scheme == "files" and glob.has_magic(uri.rest):
        base = Path(glob.escape(str(base)))
    return _text("source", Uri(uri.scheme, _path("source", uri.rest, base), uri.options))


def _task_based(task: str, base: Path) -> str:
    """A task with its labels file, and its model where that is a path and no name, made absolute."""
    uri = parse_uri(task if ":" in task else f"{task}:")
    made = uri
    if "labels" in uri.options:
        made = Uri(uri.scheme, uri.rest, {**uri.options, "labels": _path("labels", uri.options["labels"], base)})
    is_file = uri.rest.endswith((".onnx", ".tflite")) and (base / uri.rest).is_file()
    if ":" not in uri.scheme and ("/" in uri.rest or is_file):
        return _text("tasks", Uri(uri.scheme, _path("tasks", uri.rest, base), made.options))
    return task if made == uri else str(made)


def warnings(pipe: Pipeline) -> list[str]:
    """What is no mistake, but may be meant otherwise; each one line that names the pipeline and the key."""
    told = []
    uri = parse_uri(pipe.source)
    if uri.scheme in NETWORK:
        query = uri.rest.partition("?")[2]
        ours = sorted({pair.partition("=")[0] for pair in query.split("&")} & OUR_OPTIONS - set(uri.options))
        if ours:
            named = ", ".join(ours)
            told.append(
                f"pipeline {pipe.name}: source: {named} stands behind ?, so it is for the camera; our own options "
                f"stand behind #, as in {uri.scheme}://…#{ours[0]}=…"
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


PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}


class BrokerAddress(NamedTuple):
    """Where a broker listens."""

    host: str
    port: int
    secure: bool
    """TLS"""
    path: str | None
    """of MQTT over WebSockets; None: plain MQTT"""


def parse_broker(url: str) -> BrokerAddress:
    """``mqtt[s]://host[:port]`` or ``ws[s]://host[:port]/path``."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        shown = "the address" if "@" in url else f'"{url}"'  # what stands before an @ may be a password
        raise ConfigError(f"mqtt.url: {shown}: {error}; write mqtt://host[:port]") from None
    if "@" in url:
        raise ConfigError("mqtt.url: no user or password in the address; use mqtt.username and mqtt.password_file")
    web = parts.scheme in ("ws", "wss")
    odd = bool(parts.fragment or port == 0 or re.search(r"\s", parts.netloc + parts.path))
    odd = odd or (not web and (parts.path not in ("", "/") or bool(parts.query)))
    mend = "; write mqtts:// for TLS" if parts.scheme in ("ssl", "tls") else "; write mqtt:// before the host"
    if parts.scheme not in PORTS or not parts.hostname or odd:
        whole = "mqtt://host[:port], mqtts://host[:port], ws://host/path or wss://host/path"
        raise ConfigError(f'mqtt.url: "{url}" is not {whole}{"" if parts.scheme in PORTS else mend}')
    path = (parts.path or "/mqtt") + (parts.query and f"?{parts.query}") if web else None
    return BrokerAddress(parts.hostname, port or PORTS[parts.scheme], parts.scheme in ("mqtts", "wss"), path)


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
