"""What the types of a config cannot say: names that differ, addresses that can be read, paths made absolute."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.config.archive import check_archive
from edge_agent.config.broker import parse_brokers, shown_url
from edge_agent.config.fleet import checked_update
from edge_agent.config.homeassistant import checked_homeassistant
from edge_agent.config.mcp import check_mcp
from edge_agent.config.notify import checked_notify
from edge_agent.config.opinion import checked_opinion
from edge_agent.config.page import checked_page
from edge_agent.config.rollout import checked_rollout
from edge_agent.config.rule_names import checked_rules
from edge_agent.config.samples import checked_samples
from edge_agent.config.sections import (
    CLASSES,
    EVENT_KINDS,
    RESERVED,
    Config,
    Mqtt,
    Pipeline,
    Privacy,
    Understand,
    level,
    tracks,
)
from edge_agent.config.sparkplug import checked_sparkplug
from edge_agent.config.zones import Zone, checked_zones
from edge_agent.errors import ConfigError, nearest
from edge_agent.personal import FINDERS
from edge_agent.uri import Uri, parse_task, parse_uri

LONGEST_PATTERN = 1000
"""characters of a regular expression"""


def checked(config: Config, base: Path, table: dict[str, Any]) -> Config:
    """The config with what it leaves out, and its paths made absolute from `base`; `table` is what was written.

    Raises ConfigError.
    """
    device, store = config.device, config.store
    if "id" not in table.get("device", {}):
        device = msgspec.structs.replace(device, id=_host())
    _check_names(config.pipeline)
    for at, pipe in enumerate(config.pipeline):
        _check_classes(f"pipeline[{at}]", pipe)
        _check_uris(f"pipeline[{at}]", pipe)
    _check_patterns(config.privacy)
    _check_captured(config)
    names = [pipe.name for pipe in config.pipeline]
    check_archive(config.archive, names)
    check_mcp(config.mcp, config.archive is not None, names)
    checked_samples(config.samples, table.get("samples", {}), names)
    understand = _understand(config.understand, base)
    if store.path is not None:
        store = msgspec.structs.replace(store, path=_path("store.path", store.path, base))
    mqtt = checked_mqtt(config.mqtt, base)
    checked_sparkplug(config.sparkplug, mqtt.url)
    checked_homeassistant(config.homeassistant, mqtt.url)
    pipes = [
        msgspec.structs.replace(
            pipe,
            source=_based(pipe.source, base),
            tasks=[_task_based(task, base) for task in pipe.tasks],
            blur=config.privacy.blur if pipe.blur is None else pipe.blur,
        )
        for pipe in config.pipeline
    ]
    zones = _zones_and_rules(config, pipes)
    rules = [rule.name for rule in config.rule]
    classes = {pipe.name: pipe.class_of for pipe in pipes}
    known = classes, rules, config.samples.snapshots, lambda key, given: _path(key, given, base)
    told = {"notify": checked_notify(config.notify, *known), "opinion": checked_opinion(config.opinion, *known)}
    made: dict[str, Any] = {"device": device, "mqtt": mqtt, "store": store, "pipeline": pipes, "zone": zones}
    made["understand"] = understand
    update = checked_update(config.update, lambda key, given: _path(key, given, base))
    made["rollout"] = checked_rollout(config.rollout, mqtt.url, lambda key, given: _path(key, given, base))
    return msgspec.structs.replace(config, page=checked_page(config.page, base), update=update, **told, **made)


def _zones_and_rules(config: Config, pipes: list[Pipeline]) -> list[Zone]:
    """The zones with their pipelines, once the rules were held against them. ConfigError."""
    names = [pipe.name for pipe in pipes]
    zones = checked_zones(config.zone, names, [pipe.name for pipe in pipes if tracks(pipe)])
    checked_rules(config.rule, config.profile, names, zones)
    return zones


def _check_captured(config: Config) -> None:
    """ConfigError where a task looks in what nobody remembers."""
    tasks = [task for pipe in config.pipeline for task in pipe.tasks]
    remembered = config.understand is not None and config.understand.captured
    if not remembered and any("context=captured" in task for task in tasks):
        raise ConfigError("context=captured: nothing is remembered; write captured = 200 under [understand]")


def _understand(given: Understand | None, base: Path) -> Understand | None:
    """``[understand]`` with absolute paths."""
    if given is None:
        return None
    paths = {key: getattr(given, key) for key in ("documents", "labels")}
    made = {key: _path(f"understand.{key}", path, base) for key, path in paths.items() if path}
    return msgspec.structs.replace(given, **made)


def _host() -> str:
    """The host's name, as a device may be called."""
    import socket

    return re.sub(r"[^A-Za-z0-9_.\-]", "-", socket.gethostname())[:64].lstrip("-._") or "edge"


def _check_names(pipes: list[Pipeline]) -> None:
    seen: set[str] = set()
    for at, name in enumerate(pipe.name for pipe in pipes):
        if level(name) in seen:
            dots = " (in topics, where a dot is written _)" if "." in "".join(pipe.name for pipe in pipes) else ""
            raise ConfigError(f'pipeline[{at}].name: "{name}" stands twice{dots}; give each its own name')
        if name in RESERVED:
            raise ConfigError(f'pipeline[{at}].name: "{name}" is a topic of the device itself; choose another')
        seen.add(level(name))


def _check_classes(where: str, pipe: Pipeline) -> None:
    kinds = pipe.cls if isinstance(pipe.cls, dict) else {EVENT_KINDS[0]: pipe.cls}
    for kind, cls in kinds.items():
        for given, known in ((kind, EVENT_KINDS), (cls, CLASSES)):
            if given not in known:
                raise ConfigError(f'{where}.class: "{given}" is none{nearest(given, known)}')


def _check_patterns(privacy: Privacy) -> None:
    for name, pattern in privacy.patterns.items():
        where = f"privacy.patterns.{name}"
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name) or name in FINDERS or name == "unchecked":
            what = "is taken" if name in FINDERS else "is no name"
            raise ConfigError(f"{where}: {what}; write up to 32 of a-z, 0-9, _ and -, and none of {', '.join(FINDERS)}")
        try:
            empty = re.compile(pattern).match("") is not None
        except (re.error, RecursionError, OverflowError) as error:
            raise ConfigError(f"{where}: no regular expression: {error}; mend it there") from None
        if empty or len(pattern) > LONGEST_PATTERN:
            what = "is found in the empty text" if empty else f"is longer than {LONGEST_PATTERN} characters"
            raise ConfigError(f"{where}: {what}; write one that finds only what is meant")


def _check_uris(where: str, pipe: Pipeline) -> None:
    for key, text, example in _uris(pipe):
        try:
            if not text.strip():
                raise ConfigError(f'"" names none; write e.g. "{example}"')
            (parse_uri if key == "source" else parse_task)(text)
        except ConfigError as error:
            raise ConfigError(f"{where} ({pipe.name}): {key}: {error}") from None


def _uris(pipe: Pipeline) -> Iterator[tuple[str, str, str]]:
    """Key, text and an example of what stands there."""
    yield "source", pipe.source, "camera:0"
    for task in pipe.tasks:
        yield "tasks", task, "detect:detector"


def checked_mqtt(mqtt: Mqtt, base: Path) -> Mqtt:
    """What goes together in it, and its paths made absolute. ConfigError."""
    given = {key for key in ("ca", "cert", "key", "password_file", "signers") if getattr(mqtt, key) is not None}
    _check_encrypted(mqtt.url, given)
    if len(given & {"cert", "key"}) == 1:
        raise ConfigError("mqtt: cert and key come together; give both or none")
    if mqtt.password_file and not mqtt.username:
        raise ConfigError("mqtt.password_file: needs mqtt.username beside it")
    files = {key: getattr(mqtt, key) for key in given if not getattr(mqtt, key).startswith("credential:")}
    return msgspec.structs.replace(mqtt, **{key: _path(f"mqtt.{key}", files[key], base) for key in sorted(files)})


def _check_encrypted(url: str | list[str] | None, given: set[str]) -> None:
    """With an address without TLS nothing may be given that only TLS uses."""
    if url is None or parse_brokers(url)[0].secure:
        return
    for key in ("ca", "cert", "key"):
        if key in given:
            scheme = shown_url(url).partition(":")[0]
            mend = f"{scheme}:// is not encrypted, and would not use it; write {scheme}s://"
            raise ConfigError(f"mqtt.{key}: {mend}")


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
    is_file = uri.scheme in ("files", "lines") or (uri.scheme == "ffmpeg" and "://" not in uri.rest)
    if not is_file or uri.rest in ("-", ""):
        return source
    if uri.scheme == "files" and glob.has_magic(uri.rest):
        base = Path(glob.escape(str(base)))
    return _text("source", Uri(uri.scheme, _path("source", uri.rest, base), uri.options))


def _task_based(task: str, base: Path) -> str:
    """A task with its labels file or documents, and its model where that is a path and no name, made absolute."""
    uri = parse_task(task)
    made = uri
    for key in ("labels", "context", "also_token"):
        if made.options.get(key, "captured") != "captured":
            made = Uri(uri.scheme, uri.rest, {**made.options, key: _path(key, made.options[key], base)})
    is_file = uri.rest.endswith((".onnx", ".tflite")) and (base / uri.rest).is_file()
    if ":" not in uri.scheme and ("/" in uri.rest or is_file):
        return _text("tasks", Uri(uri.scheme, _path("tasks", uri.rest, base), made.options))
    return task if made == uri else str(made)
