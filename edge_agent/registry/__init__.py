"""What models there are here, and where their files lie.

A model is a folder with a manifest: in HOME/models (added by the user) or in the carried ``models/`` (the
catalogue). Files are carried beside the manifest, or lie in HOME/blobs by their hash once they were fetched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from edge_agent.config import NAME
from edge_agent.errors import FetchError, ManifestError, ModelError, RefusedError, UsageError
from edge_agent.manifest import File, Manifest, load
from edge_agent.registry import store

if TYPE_CHECKING:
    from edge_agent.registry.seen import Seen

PACKAGE = Path(__file__).resolve().parent.parent

ALIASES = {"detector": ("yolox-nano", "edge-yolo"), "encoder": ("minilm-l6-int8", "edge-bert")}
"""A name that means the best that this device has: (fetched, our own, which is always here)."""

SUFFIXES = {".onnx": "onnx", ".tflite": "tflite"}

Say = Callable[[int, int], None]
ReadFile = Callable[[Path], "Seen"]


class Located(msgspec.Struct, frozen=True):
    """A model that was found; its files may still be missing (see `file_path`)."""

    manifest: Manifest
    folder: Path
    why: str
    """why this model, one line"""


def home() -> Path:
    """Folder for what this program keeps: $EDGE_AGENT_HOME (--home), that of the service ($STATE_DIRECTORY of systemd,
    /var/lib/edge-agent), or a person's ($XDG_DATA_HOME/edge-agent, ~/.local/share/edge-agent).
    """
    given = os.environ.get("EDGE_AGENT_HOME") or os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    data = os.environ.get("XDG_DATA_HOME", "")
    base = data if data.startswith("/") else "~/.local/share"  # a relative one is to be ignored, says the standard
    try:
        return Path(given or f"{base}/edge-agent").expanduser().absolute()
    except RuntimeError as error:
        raise UsageError(f"EDGE_AGENT_HOME: {given}: {error}") from None


def carried(*parts: str) -> Path:
    """A path below models/, deploy/ or systemd/ as the checkout or the installed wheel carries it."""
    inside = PACKAGE / "carried"
    return (inside if inside.is_dir() else PACKAGE.parent).joinpath(*parts)


# ── finding a model ──────────────────────────────────────────────────────────────────────────────────────


def locate(
    name: str,
    *,
    pull: bool = False,
    say: Say | None = None,
    read: ReadFile | None = None,
) -> Located:
    """Find a model: an alias, a name in the registry, a folder with a manifest, or a bare .onnx or .tflite file.

    `pull`: an alias may fetch its first choice. `read` says what a bare file is (reading.seen, in a child process).
    Raises ManifestError, RefusedError (a bare file of no known family) or FetchError.
    """
    if name in ALIASES:
        return _best(name, pull, say)
    if re.fullmatch(NAME, name):
        for root, where in _roots():
            if _is_model(root / name):
                return Located(manifest_in(root / name), root / name, f"{name}: {where}")
    try:
        path = Path(name).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise ManifestError(f"{name[:80]!r} is no model's name or path ({error.__class__.__name__})") from None
    if not name.strip():
        raise ManifestError("no model is named; give a name, a folder, a .onnx or a .tflite file")
    if is_folder and not (path / "manifest.toml").is_file():
        raise ManifestError(f"{path}: no manifest there; give the .onnx or .tflite file in it, or write manifest.toml")
    if is_folder:
        return Located(load(path / "manifest.toml"), path, f"the manifest in {path}")
    if path.suffix.lower() in SUFFIXES and is_file:
        if read is None:
            raise RefusedError(f"{path}: a bare file; add it first: `edge-agent models add {path}`")
        return _bare(path, read)
    if is_file:
        raise ManifestError(f"{name}: not a .onnx or .tflite file; convert the model to one of these")
    if os.sep in name or path.suffix.lower() in SUFFIXES:
        raise ManifestError(f"{name}: no such file or folder; give a model's name, folder, .onnx or .tflite file")
    known = ", ".join([*ALIASES, *sorted({folder.name for folder in _folders()})])
    raise ManifestError(f'no model "{name}"; known are {known}, or give a folder, a .onnx or a .tflite file')


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
    if pull_it and not _serves(found):
        try:
            pull(first, say)
        except FetchError as error:
            why = f"not to be had ({error})"
    if _serves(found):
        return Located(found.manifest, found.folder, f"{alias} is {first}: it is here")
    if state(found) == "corrupt":
        why = f"damaged, `edge-agent models pull {first}`"
    try:
        located = locate(own)
    except ManifestError:
        raise FetchError(f"{alias}: {own} did not come with the program, and {first} is {why}") from None
    return Located(located.manifest, located.folder, f"{alias} is {own}: {first} is {why}")


def _serves(located: Located) -> bool:
    """Whether a network and all parts that are none (vocabulary) are here and right."""
    conditions = {row.name: _look(located, row)[1] for row in located.manifest.file}
    networks = {row.name for row in located.manifest.networks()}
    parts = {row.name for row in located.manifest.file if row.format == "text"}
    return any(conditions[name] == "right" for name in networks) and all(conditions[name] == "right" for name in parts)


def _bare(path: Path, read: ReadFile) -> Located:
    """A manifest for a file that has none, with the reasons as `why`. RefusedError for what cannot be run."""
    format = SUFFIXES[path.suffix.lower()]
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


def _is_model(folder: Path) -> bool:
    """Whether a model was put there; a link to a version that is gone is a broken one."""
    return (folder / "manifest.toml").is_file() or folder.is_symlink()


def manifest_in(folder: Path) -> Manifest:
    """The manifest of a model's folder. ManifestError; of a model that was added it says how to be rid of it."""
    try:
        return load(folder / "manifest.toml")
    except ManifestError as error:
        root = home() / "models"
        if root not in folder.parents:
            raise
        names = folder.relative_to(root).parts
        name = names[1] if names[0] == ".versions" else names[0]
        raise ManifestError(f"{error}; mend it, or remove the model: `edge-agent models remove {name}`") from None


def _folders() -> Iterator[Path]:
    """Folders of all models; one that was added hides the catalogue's of the same name."""
    seen = set()
    for root, _ in _roots():
        for folder in sorted(root.iterdir()) if root.is_dir() else ():
            if _is_model(folder) and not folder.name.startswith(".") and folder.name not in seen:
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


# ── its files ────────────────────────────────────────────────────────────────────────────────────────────


def file_path(located: Located, row: File, *, pull: bool = False, say: Say | None = None) -> Path:
    """Path of one file of a model, its hash computed now. `pull` fetches what is missing or wrong.

    Raises FetchError: which file, both hashes shortened, and what to do.
    """
    path, condition, problem = _look(located, row)
    if condition == "right":
        return path
    if pull and row.sources:
        return _fetch(located, row, say or _quiet)
    raise FetchError(problem)


def is_here(located: Located, row: File) -> bool:
    """Whether a file lies here, right or damaged; it is not read."""
    return (located.folder / row.name).is_file() or store.blob(home(), row.sha256).is_file()


def _look(located: Located, row: File) -> tuple[Path, Literal["right", "absent", "corrupt"], str]:
    """Where a file is, how it is, and what to tell people when it is not right."""
    name = located.manifest.name
    mend = f"run `edge-agent models pull {name}`" if row.sources else "put the right one there, or install anew"
    beside, blob = located.folder / row.name, store.blob(home(), row.sha256)
    path = beside if beside.is_file() else blob
    try:
        found = store.digest(path)
    except FileNotFoundError:
        where = "is not here yet" if row.sources else f"is missing in {located.folder}"
        return path, "absent", f"{name}: {row.name} {where}; {mend}"
    except OSError as error:
        return path, "corrupt", f"{name}: {path} cannot be read ({error.strerror}); {mend}"
    if found == row.sha256:
        return path, "right", ""
    if path == beside and row.sources:
        mend = f"delete it and {mend}"
    wrong = f"{row.name} is damaged: sha256 {found[:12]}…, not {row.sha256[:12]}…"
    return path, "corrupt", f"{name}: {wrong}; {mend} ({path})"


def _fetch(located: Located, row: File, say: Say) -> Path:
    from edge_agent.registry import fetch

    mirror = os.environ.get(fetch.MIRROR)
    return fetch.fetch(home(), located.manifest.name, located.folder, row, mirror, say)


def _quiet(done: int, total: int) -> None:
    """Progress for nobody."""


def state(located: Located) -> Literal["carried", "ready", "absent", "corrupt"]:
    """carried: all of it came with the program; ready: it can serve; absent; corrupt: the hash of a file is wrong."""
    conditions = {_look(located, row)[1] for row in located.manifest.file}
    if "corrupt" in conditions:
        return "corrupt"
    own = located.folder.parent == carried("models") and not any(row.sources for row in located.manifest.file)
    if own and conditions == {"right"}:
        return "carried"
    return "ready" if _serves(located) else "absent"


# ── what the command line does with them ─────────────────────────────────────────────────────────────────


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
    located = locate(ALIASES[name][0] if name in ALIASES else name)
    try:
        earlier = _earlier(located.folder)
    except ManifestError:
        earlier = None
    rows = [(each, row) for each in (located, earlier) if each is not None for row in each.manifest.file]
    total, before = sum(row.bytes for _, row in rows), 0
    for each, row in rows:

        def tell(done: int, _: int, before: int = before) -> None:
            (say or _quiet)(before + done, total)

        try:
            file_path(each, row, pull=True, say=tell)
        except FetchError as error:
            raise FetchError(str(error) if each is located else _before_it(each, str(error))) from None
        before += row.bytes
        tell(0, 0, before)
    return located


def verify(name: str | None = None) -> list[str]:
    """Compute the hashes of one model's files, or of all that are here, and of those of the versions before them; each
    problem as one line.

    Raises ManifestError where there is no model of that name.
    """
    problems = []
    for folder in [locate(name).folder] if name is not None else _folders():
        try:
            located = Located(manifest_in(folder), folder, "")
            looks = [_look(located, row) for row in located.manifest.file]
            # of the catalogue, what nobody fetched is no problem
            untouched = name is None and all(condition == "absent" for _, condition, _ in looks)
            if not (untouched and all(row.sources for row in located.manifest.file)):
                problems += [problem for _, condition, problem in looks if condition != "right"]
            if (earlier := _earlier(folder)) is not None:
                looks = [_look(earlier, row) for row in earlier.manifest.file]
                problems += [_before_it(earlier, problem) for _, condition, problem in looks if condition != "right"]
        except ModelError as error:
            problems.append(str(error))
    return problems
