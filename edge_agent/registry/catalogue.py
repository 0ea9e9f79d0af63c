"""What models there are here: found by name, listed, fetched, verified."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.errors import FetchError, ManifestError, ModelError, RefusedError
from edge_agent.manifest import File, Manifest, load
from edge_agent.paths import carried, home
from edge_agent.registry import licences, store
from edge_agent.registry.files import Located, Looked, Say, file_path, is_model, look, manifest_in, quiet, serves, state
from edge_agent.toml import NAME

if TYPE_CHECKING:
    from edge_agent.manifest import Seen


ALIASES = {"detector": ("yolox-nano", "edge-yolo"), "encoder": ("minilm-l6-int8", "edge-bert")}
"""A name that means the best that this device has: (fetched, our own, which is always here)."""

SUFFIXES = {".onnx": "onnx", ".tflite": "tflite"}
ReadFile = Callable[[Path], "Seen"]


def locate(
    name: str,
    *,
    pull: bool = False,
    say: Say | None = None,
    read: ReadFile | None = None,
) -> Located:
    """Find a model: an alias, a name in the registry, a folder with a manifest, or a bare .onnx or .tflite file.

    `pull`: an alias may fetch its first choice. `read` says what a bare file is (gate/read.py, in a child process).
    Raises ManifestError, RefusedError (a bare file of no known family) or FetchError.
    """
    if name in ALIASES:
        return _best(name, pull, say)
    if named := _named(name):
        return named
    if not name.strip():
        raise ManifestError("no model is named; give a name, a folder, a .onnx or a .tflite file")
    try:
        path = Path(name).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise ManifestError(f"{name[:80]!r} is no model's name or path ({error.__class__.__name__})") from None
    if is_folder:
        return _in_folder(path)
    if is_file:
        return _file(path, read)
    if os.sep in name or path.suffix.lower() in SUFFIXES:
        raise ManifestError(f"{name}: no such file or folder; give a model's name, folder, .onnx or .tflite file")
    known = ", ".join([*ALIASES, *sorted({folder.name for folder in _folders()})])
    raise ManifestError(f'no model "{name}"; known are {known}, or give a folder, a .onnx or a .tflite file')


def _named(name: str) -> Located | None:
    """The model of this name in the registry, or of those that came with the program."""
    for root, where in _roots() if re.fullmatch(NAME, name) else ():
        if is_model(root / name):
            return Located(manifest_in(root / name), root / name, f"{name}: {where}")
    return None


def _in_folder(path: Path) -> Located:
    if not (path / "manifest.toml").is_file():
        raise ManifestError(f"{path}: no manifest there; give the .onnx or .tflite file in it, or write manifest.toml")
    return Located(load(path / "manifest.toml"), path, f"the manifest in {path}")


def _file(path: Path, read: ReadFile | None) -> Located:
    if path.suffix.lower() not in SUFFIXES:
        raise ManifestError(f"{path}: not a .onnx or .tflite file; convert the model to one of these")
    if read is None:
        raise RefusedError(f"{path}: a bare file; add it first: `edge-agent models add {path}`")
    return _bare(path, read)


def fingerprint(name: str) -> str:
    """Another text as soon as `locate` would read another manifest or bare file; empty when nothing is there.

    Two system calls, to be asked every few seconds. An alias keeps to the model that it meant at the start.
    """
    if name in ALIASES:
        return ""
    for place in (*(root / name / "manifest.toml" for root, _ in _roots()), Path(name) / "manifest.toml", Path(name)):
        try:
            stat = place.stat()
            if place.is_dir():
                continue
            return f"{place.resolve()} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"
        except (OSError, ValueError):
            continue
    return ""


def _best(alias: str, pull_it: bool, say: Say | None) -> Located:
    """The first of an alias's models that can serve (or can be had), with the reason."""
    first, own = ALIASES[alias]
    found = locate(first)
    why = f"not fetched yet, `edge-agent models pull {first}`"
    if pull_it and not serves(found):
        try:
            pull(first, say)
        except FetchError as error:
            why = f"not to be had ({error})"
    if serves(found):
        return Located(found.manifest, found.folder, f"{alias} is {first}: it is here")
    if state(found) == "corrupt":
        why = f"damaged, `edge-agent models pull {first}`"
    try:
        located = locate(own)
    except ManifestError:
        raise FetchError(f"{alias}: {own} did not come with the program, and {first} is {why}") from None
    return Located(located.manifest, located.folder, f"{alias} is {own}: {first} is {why}")


def _bare(path: Path, read: ReadFile) -> Located:
    """A manifest for a file that has none, with the reasons as `why`. RefusedError for what cannot be run."""
    format = SUFFIXES[path.suffix.lower()]
    with contextlib.suppress(OSError):
        licences.check(str(path), store.digest(path))
    seen = read(path)
    if seen.refusal:
        raise RefusedError(seen.refusal)
    rows = [_row(path, format, "model")]
    if seen.text:
        part = seen.text.tokenizer or seen.text.vocab or ""
        rows.append(_row(path.with_name(part), "text", "tokenizer" if seen.text.tokenizer else "vocab"))
    manifest = Manifest(
        name=re.sub(r"[^A-Za-z0-9_.\-]", "-", path.stem).lstrip("_.-")[:64] or "model",
        version=rows[0].sha256[:12],
        task=seen.task,  # type: ignore[arg-type]
        family=seen.family,
        licence=seen.licence,
        trained_by="unknown",
        file=rows,
        labels=seen.labels,
        class_ids=seen.class_ids,
        input=seen.input,
        text=seen.text,
    )
    return Located(manifest, path.parent, "; ".join(seen.reasons))


def _row(path: Path, format: str, role: str) -> File:
    try:
        digest = store.digest(path)
    except OSError as error:
        raise RefusedError(f"{path}: cannot be read ({error.strerror}); check the path and its owner") from None
    return File(path.name, format, digest, path.stat().st_size, precision="unknown", role=role)  # type: ignore[arg-type]


def _roots() -> tuple[tuple[Path, str], tuple[Path, str]]:
    return (home() / "models", "added here"), (carried("models"), "of the catalogue")


def _folders() -> Iterator[Path]:
    """Folders of all models; one that was added hides the catalogue's of the same name."""
    seen = set()
    for root, _ in _roots():
        for folder in sorted(root.iterdir()) if root.is_dir() else ():
            if is_model(folder) and not folder.name.startswith(".") and folder.name not in seen:
                seen.add(folder.name)
                yield folder


def before(name: str) -> str:
    """The previous version of a model that was added, for people: its version and first network; "" where there is
    none that can be read.
    """
    try:
        earlier = _earlier(home() / "models" / name)
    except ManifestError:
        return ""
    return f"{earlier.manifest.version} ({earlier.manifest.networks()[0].name})" if earlier is not None else ""


def _earlier(folder: Path) -> Located | None:
    """The version before that of a model's folder; None where there is none. ManifestError for one that is damaged."""
    from edge_agent.registry import versions

    place = versions.previous(home(), folder.name) if folder.parent == home() / "models" else None
    return Located(manifest_in(place), place, "") if place is not None else None


def _before_it(earlier: Located, problem: str) -> str:
    """A problem with a file of an earlier version, which has the same name."""
    return f"the version before, {earlier.manifest.version}: {problem}"


def listing() -> list[dict[str, Any]]:
    """One dict a model, by name; format, sha256 and bytes are those of the network that is preferred."""
    rows = []
    for folder in _folders():
        try:
            located = Located(manifest_in(folder), folder, "")
        except ModelError as error:
            blank = dict.fromkeys(("task", "family", "format", "version", "sha256", "licence", "trained_by"), "")
            rows.append({"name": folder.name, **blank, "bytes": 0, "state": "corrupt", "why": str(error)})
            continue
        m, net = located.manifest, located.manifest.networks()[0]
        rows.append(
            {
                "name": m.name,
                "task": m.task,
                "family": m.family,
                "format": net.format,
                "version": m.version,
                "sha256": net.sha256,
                "licence": m.licence,
                "trained_by": m.trained_by,
                "bytes": net.bytes,
                "state": state(located),
            }
        )
    return sorted(rows, key=lambda row: str(row["name"]))


def pull(name: str, say: Say | None = None) -> Located:
    """Bring all files of a model here, then those of the version before it. `say` hears of bytes done and bytes in all.

    Raises FetchError.
    """
    from edge_agent.registry.pypi import keeping

    located = locate(ALIASES[name][0] if name in ALIASES else name)
    try:
        earlier = _earlier(located.folder)
    except ManifestError:
        earlier = None
    rows = [(each, row) for each in (located, earlier) if each is not None for row in each.manifest.file]
    with keeping():
        _pull(rows, located, say or quiet)
    return located


def _pull(rows: list[tuple[Located, File]], located: Located, say: Say) -> None:
    """Bring these files here. FetchError, which says where it is not one of `located`."""
    total, before = sum(row.bytes for _, row in rows), 0
    for each, row in rows:

        def tell(done: int, _: int, before: int = before) -> None:
            say(before + done, total)

        try:
            file_path(each, row, pull=True, say=tell)
        except FetchError as error:
            raise FetchError(str(error) if each is located else _before_it(each, str(error))) from None
        before += row.bytes
        tell(0, 0, before)


def verify(name: str | None = None) -> list[str]:
    """Compute the hashes of one model's files, or of all that are here, and of those of the versions before them; each
    problem as one line.

    Raises ManifestError where there is no model of that name.
    """
    problems: list[str] = []
    for folder in [locate(name).folder] if name is not None else _folders():
        try:
            located = Located(manifest_in(folder), folder, "")
            looks = [look(located, row) for row in located.manifest.file]
            # of the catalogue, what nobody fetched is no problem
            if name is not None or not _is_untouched(located, looks):
                problems += _wrong(looks)
            if (earlier := _earlier(folder)) is not None:
                looks = [look(earlier, row) for row in earlier.manifest.file]
                problems += [_before_it(earlier, problem) for problem in _wrong(looks)]
        except ModelError as error:
            problems.append(str(error))
    return problems


def _is_untouched(located: Located, looks: list[Looked]) -> bool:
    """Whether all files of a model can be fetched, and none was."""
    return all(row.sources for row in located.manifest.file) and all(how == "absent" for _, how, _ in looks)


def _wrong(looks: list[Looked]) -> list[str]:
    return [problem for _, condition, problem in looks if condition != "right"]
