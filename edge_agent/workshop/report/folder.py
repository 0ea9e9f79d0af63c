"""What a verb of the workshop leaves behind: a model folder that the agent's gate has looked at, with its report."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from edge_agent.errors import EdgeAgentError, ModelError, RefusedError, UsageError
from edge_agent.manifest import File, Manifest, load
from edge_agent.registry import store
from edge_agent.registry.catalogue import locate
from edge_agent.registry.files import Located, file_path, is_here
from edge_agent.serving.models import try_all
from edge_agent.toml import NAME, toml
from edge_agent.workshop.report.report import MakingReport, save

WORK = ".work"
"""folder inside --out for what is not finished: it is gone once the model stands"""
TRAINING = "training"
"""folder inside --out for the checkpoints of a training"""
LAYOUTS: dict[str, Literal["NCHW", "NHWC"]] = {"onnx": "NCHW", "tflite": "NHWC"}


@contextlib.contextmanager
def work(out: Path) -> Iterator[Path]:
    """OUT/.work, made; a full disk (or another failed write) in the block is one line.

    What a block that ends badly has left in it stays there for the next run, unless the disk was full. Raises
    UsageError before anything is done where OUT holds something that the workshop did not make.
    """
    check(out)
    fresh = not out.exists()
    try:
        (out / WORK).mkdir(parents=True, exist_ok=True)
        with _alone(out):
            yield out / WORK
    except OSError as error:
        shutil.rmtree(out if fresh else out / WORK, ignore_errors=True)
        where = error.filename or out
        raise EdgeAgentError(f"{where}: cannot be written ({error.strerror}); nothing was kept") from None


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Nobody else makes a model in OUT meanwhile. UsageError where somebody does."""
    if out.absolute() in BUSY:  # by this very run: it is written out within its work
        yield
        return
    fd = os.open(out / WORK, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise UsageError(f"--out {out}: another run makes a model there; wait for it, or name another folder") from None
    BUSY.add(out.absolute())
    try:
        yield
    finally:
        BUSY.discard(out.absolute())
        os.close(fd)


BUSY: set[Path] = set()
"""folders that this process works in"""


def check(out: Path) -> None:
    """UsageError unless OUT can become a model folder: it is new, empty, or the workshop made what is in it. A card
    that people wrote may stand there.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: that is a file; name a folder")
    try:
        inside = (
            [path for path in out.iterdir() if path.name not in (WORK, TRAINING, "README.md")] if out.is_dir() else []
        )
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be listed ({error.strerror})") from None
    if inside and not _ours(out):
        raise UsageError(f"--out {out}: it holds {inside[0].name}, which the workshop did not make; name a new folder")


def _ours(out: Path) -> bool:
    if any((out / name).is_file() for name in ("report.json", "checkpoint.pt")):
        return True
    try:
        return load(out / "manifest.toml").made is not None
    except ModelError:
        return False


def write(out: Path, build: Callable[[Path], Manifest], report: MakingReport) -> Manifest:
    """Make OUT the model folder of the files that `build` writes into the folder that it is given, with report.json and
    report.html, and let the gate try it against its parent.

    Of the rows of its manifest name, format, precision, role and layout count; the rest is read off the files. The
    model is called as the folder is, where that is a model's name, so that it is not taken for another one. All is
    written to OUT/.work and renamed, the manifest last, so that no half of a model ever stands in OUT. Raises
    EdgeAgentError, one line, for a full disk, which leaves OUT as it was; RefusedError where the gate takes none of the
    files: the folder stays for a look, the report says why.
    """
    own = out.resolve().name
    with work(out) as place:
        new = place / "new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        manifest = build(new)
        found = [(store.digest(new / row.name), (new / row.name).stat().st_size) for row in manifest.file]
        rows = [
            msgspec.structs.replace(row, sha256=digest, bytes=size)
            for row, (digest, size) in zip(manifest.file, found, strict=True)
        ]
        card = "README.md" if any((place / "README.md").is_file() for place in (out, new)) else None
        called = own if re.fullmatch(NAME, own) else manifest.name
        whole = msgspec.structs.replace(manifest, name=called, file=rows, card=card)
        (new / "manifest.toml").write_text(toml(msgspec.to_builtins(whole)), encoding="utf-8")
        save(report, new)
        (out / "manifest.toml").unlink(missing_ok=True)
        for path in sorted(new.iterdir(), key=lambda path: path.name == "manifest.toml"):
            path.replace(out / path.name)
        manifest = load(out / "manifest.toml")
    _tried(out, manifest, report)
    shutil.rmtree(out / WORK, ignore_errors=True)
    return manifest


def _tried(out: Path, manifest: Manifest, report: MakingReport) -> None:
    """What the gate says goes into the report."""
    try:
        tried = try_all(Located(manifest, out, str(out)))
        report.notes.extend(f"gate: {one.refused or '; '.join(one.notes)}" for one in tried)
    except RefusedError as error:
        report.notes.append(f"gate: {error}")
        raise RefusedError(f"{out}: the gate refuses it: {error}; see {out / 'report.html'}") from None
    finally:
        save(report, out)


def reference(parent: Located) -> str:
    """How the manifest names its parent, so that the gate finds its file: by name where that has it here, else by its
    absolute path.
    """
    name, row = parent.manifest.name, parent.manifest.original()
    with contextlib.suppress(ModelError):
        known = locate(name)
        if known.manifest.original().sha256 == row.sha256 and is_here(known, row):
            return name
    if (parent.folder / "manifest.toml").is_file():
        return str(parent.folder.absolute())
    return str((parent.folder / row.name).absolute())


def copied(
    files: Sequence[tuple[Path, str, str]],
    parent: Located,
    new: Path,
    layouts: Mapping[str, Literal["NCHW", "NHWC"]],
) -> list[File]:
    """The rows of these (path, format, precision), and of the parent's texts, all copied into `new`."""
    own, rows = parent.manifest.original(), []
    for path, format, precision in files:
        shutil.copyfile(path, new / path.name)
        alike = [row for row in parent.manifest.networks() if row.format == format]
        usual = LAYOUTS[format] if parent.manifest.input is not None and format != own.format else None
        layout = layouts.get(path.name, alike[0].layout if alike else usual)
        rows.append(File(path.name, format, "", 0, precision=precision, role=own.role, layout=layout))  # type: ignore[arg-type]
    for row in parent.manifest.file:
        if row.format == "text":
            shutil.copyfile(file_path(parent, row), new / row.name)
            rows.append(msgspec.structs.replace(row, sources=[]))
    return rows
