"""What is given to `publish` becomes the files of a bundle: a model, a config with what it names, wheels, or files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from edge_agent import config, toml
from edge_agent.config import Config
from edge_agent.config.shared import FILE, MOST, check_own
from edge_agent.errors import ConfigError, RefusedError, UsageError
from edge_agent.fleet.bundle import Kind, Origin, check_path
from edge_agent.manifest import Manifest
from edge_agent.registry import catalogue
from edge_agent.registry.files import Located, file_path
from edge_agent.toml import toml as as_toml
from edge_agent.uri import parse_task

WHEEL = re.compile(r"edge_agent_runtime-([^-]+)-.*\.whl")
UNKNOWN = ("", "unknown")


class Packed(NamedTuple):
    """What a bundle is to hold."""

    kind: Kind
    version: str
    files: Mapping[str, Path | bytes]
    """path below the bundle's folder -> what lies there"""
    origin: Origin


def pack(given: str, name: str, read: catalogue.ReadFile, kind: Kind | None = None, licence: str = "") -> Packed:
    """What a name in the registry, a folder or a file is. `kind`: as the publisher says; `read`: says what a bare
    network is. UsageError, or another EdgeAgentError of what a model or a config lacks.
    """
    path = Path(given)
    kind = kind or _kind(given, path)
    made = {"model": _model, "config": _config, "agent": _agent, "files": _files}[kind](given, path, name, read)
    if licence:
        made = made._replace(origin=msgspec.structs.replace(made.origin, licence=licence))
    if kind == "model" and made.origin.licence in UNKNOWN:
        raise UsageError(f"{given}: nobody says under which licence; say it by --licence, e.g. --licence Apache-2.0")
    for at in made.files:
        try:
            check_path(given, at)
        except RefusedError as error:
            raise UsageError(f"{error}; rename it") from None
    return made


def _kind(given: str, path: Path) -> Kind:
    if (path / "manifest.toml").is_file() or path.suffix.lower() in catalogue.SUFFIXES or not path.exists():
        return "model"
    wheels = [path] if path.is_file() else list(path.iterdir())
    if any(WHEEL.fullmatch(one.name) for one in wheels):
        return "agent"
    return "config" if path.suffix == ".toml" and _is_config(path) else "files"


def _is_config(path: Path) -> bool:
    try:
        table = toml.parse(toml.read_text(path, MOST))
    except ConfigError as error:
        raise UsageError(f"{path}: {error}") from None
    return bool(table) and set(table) <= set(Config.__struct_fields__)


def _model(given: str, path: Path, name: str, read: catalogue.ReadFile) -> Packed:
    located: Located = catalogue.locate(str(path.absolute()) if path.exists() else given, read=read)
    manifest, files = located.manifest, dict[str, Path | bytes]()
    for row in manifest.file:
        files[row.name] = file_path(located, row)
    if manifest.card is not None and (located.folder / manifest.card).is_file():
        files[manifest.card] = located.folder / manifest.card
    rows = [msgspec.structs.replace(row, sources=[]) for row in manifest.file]
    files["manifest.toml"] = as_toml(
        msgspec.to_builtins(msgspec.structs.replace(manifest, name=name, file=rows))
    ).encode()
    return Packed("model", manifest.version, files, _origin(manifest))


def _origin(manifest: Manifest) -> Origin:
    """What a manifest says of where a model comes from; of what was made from nothing else, who trained it."""
    made, by = manifest.made, f"trained by {manifest.trained_by}"
    if made is None:
        return Origin(manifest.licence, manifest.parent or "", "", f"as {manifest.trained_by} says"[:200], by)
    data = made.data_sha256 or "none"
    return Origin(manifest.licence, made.parent, made.parent_sha256, data, f"{made.verb}: {made.method}")


def _config(given: str, path: Path, name: str, read: catalogue.ReadFile) -> Packed:
    loaded = config.load(path, pipelines=False)
    text = toml.read_text(path, MOST)
    try:
        check_own(toml.parse(text))
    except ConfigError as error:
        raise UsageError(f"{path}: {error}") from None
    base, files = path.resolve().parent, dict[str, Path | bytes]()
    for one in _named(loaded):
        if not one.resolve().is_relative_to(base):
            raise UsageError(f"{path}: names {one}, which is not beside it; put it there, and name it relatively")
        if str(one) in text:
            raise UsageError(
                f"{path}: names {one} from /, where it is on no device; write it as it lies beside the config"
            )
        for each in sorted(one.rglob("*")) if one.is_dir() else [one]:
            if each.is_file():
                files[each.resolve().relative_to(base).as_posix()] = each
    files[FILE] = text.encode()
    return Packed("config", "", files, Origin(steps=f"written as {path.name}"))


def _named(loaded: Config) -> Iterator[Path]:
    """Files of labels, documents and models that a config names; no secrets."""
    for task in (task for pipe in loaded.pipeline for task in pipe.tasks):
        uri = parse_task(task)
        given = (uri.options.get("labels", ""), uri.options.get("context", ""), uri.rest)
        yield from (Path(part) for part in given if part.startswith("/"))
    if loaded.understand is not None:
        yield from (Path(part) for part in (loaded.understand.documents, loaded.understand.labels) if part)


def _agent(given: str, path: Path, name: str, read: catalogue.ReadFile) -> Packed:
    wheels = sorted(path.glob("*.whl")) if path.is_dir() else [path]
    own = [found for wheel in wheels if (found := WHEEL.fullmatch(wheel.name))]
    if len(own) != 1:
        mend = (
            "give a folder with one edge_agent_runtime-….whl and what it needs: pip download -d DIR edge-agent-runtime"
        )
        raise UsageError(f"{given}: holds {len(own)} wheels of the program; {mend}")
    return Packed("agent", own[0][1], {wheel.name: wheel for wheel in wheels}, Origin(steps="built as wheels"))


def _files(given: str, path: Path, name: str, read: catalogue.ReadFile) -> Packed:
    if not path.exists():
        raise UsageError(f"{given}: is neither a model of the registry, nor a file or folder")
    every = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    if not every:
        raise UsageError(f"{given}: is an empty folder; there is nothing to publish")
    base = path.parent if path.is_file() else path
    return Packed("files", "", {one.relative_to(base).as_posix(): one for one in every}, Origin(steps="files"))
