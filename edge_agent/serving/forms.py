"""The forms in which a model lies here: its files, and the faster ones that this device made of them; which may serve.

A faster form (see gate/derive.py) is made in the child of gate/ask.py and kept as a variant behind the file it was made
from.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edge_agent import paths
from edge_agent.errors import FetchError, ModelError, RefusedError
from edge_agent.files import stats
from edge_agent.gate.admit import absolute, admit
from edge_agent.gate.ask import ask
from edge_agent.gate.trial import GAIN, Derive, Variant
from edge_agent.gate.verdicts import Verdict, code, recall, remember, used
from edge_agent.manifest import File
from edge_agent.registry import files, store

MOST_BYTES = 500_000_000
"""of all faster forms together"""
WORTH = 1_000_000
"""bytes of a form from which on it is worth to delete it where it is no faster"""
LARGER = 1.5
"""times the bytes of its file from which on a form has to be clearly faster: by less, chance decides a race"""


def with_derived(
    located: files.Located, parts: Mapping[str, Path], threads: int = 0, *, make: bool = False
) -> files.Located:
    """The model with the faster forms of its ONNX files that this device made (gate/derive.py) as variants behind them.

    `make`: make those that are not there, or damaged, of files that may serve. One that cannot be made is left out.
    """
    made: list[File] = []
    for row in located.manifest.networks():
        if row.format == "onnx" and files.is_here(located, row):
            made += _forms(located, row, parts, threads, make=make)
    manifest = msgspec.structs.replace(located.manifest, file=[*located.manifest.file, *made])
    return msgspec.structs.replace(located, manifest=manifest)


def _forms(located: files.Located, row: File, parts: Mapping[str, Path], threads: int, *, make: bool) -> list[File]:
    """The faster forms of one file that lie here."""
    question = _derivation(located, row, parts)
    verdict = recall(question)
    found = _derived(verdict)
    if make and (verdict is None or not all(_is_right(located, one) for one in found)):
        try:
            found = _derived(_derive(row, admit(located, row, parts, threads).path, question))
        except (ModelError, OSError):
            return []
    if not found:
        return []
    used(question)
    # what a damaged file gave before it was damaged does not stand in for it
    return [one for one in found if files.is_here(located, one)] if _is_right(located, row) else []


def derived_notes(located: files.Located, row: File, parts: Mapping[str, Path]) -> list[str]:
    """What was said of the faster form of a file when it was made, or not made."""
    verdict = recall(_derivation(located, row, parts)) if row.format == "onnx" else None
    return list(filter(None, [*verdict.result.notes, verdict.result.reason])) if verdict is not None else []


def _derivation(located: files.Located, row: File, parts: Mapping[str, Path]) -> Derive:
    return Derive(manifest=located.manifest, variants=[Variant(row, "")], threads=1, parts=absolute(parts))


def _derived(verdict: Verdict | None) -> list[File]:
    """The rows of the faster forms."""
    return msgspec.convert(verdict.result.figures["files"], list[File]) if verdict and verdict.result.passed else []


def _derive(row: File, path: Path, question: Derive) -> Verdict:
    """Have it made, and keep what was made."""
    import tempfile

    with tempfile.TemporaryDirectory(dir=store.scratch(paths.home())) as folder:
        out = Path(folder) / "derived"
        question = msgspec.structs.replace(question, variants=[Variant(row, str(path.absolute()))], out=str(out))
        verdict = ask(question, again=True)
        for made, path in zip(_derived(verdict), question.places, strict=False):
            if not stat.S_ISREG(path.lstat().st_mode):
                raise RefusedError(f"{row.title()}: what was made of it is no file; it is left as it is")
            if made.bytes > MOST_BYTES:
                raise RefusedError(f"{row.title()}: its faster form is larger than {MOST_BYTES // 10**6} MB")
            store.keep(paths.home(), path, made.sha256)
    _make_room()
    return verdict


def drop_slower(
    located: files.Located, parts: Mapping[str, Path], rows: list[dict[str, Any]]
) -> list[tuple[File, File]]:
    """Delete the forms of WORTH bytes and more that a race (its rows) found no faster than the file that they were made
    from, with any number of threads. They are not made again, and the notes of the file say why. Returns what went, and
    the file of each.
    """
    gone: list[tuple[File, File]] = []
    for row in located.manifest.networks():
        question = _derivation(located, row, parts)
        verdict = recall(question) if row.format == "onnx" else None
        slow = [one for one in _derived(verdict) if one.bytes >= WORTH and _is_never_faster(one, row, rows)]
        if verdict is None or not slow:
            continue
        remember(question, _without(verdict, slow, row))
        for one in slow:
            _unlink(one.sha256)
        gone += [(one, row) for one in slow]
    return gone


def _without(verdict: Verdict, slow: list[File], row: File) -> Verdict:
    """A verdict on the forms of a file without those that were no faster, which its notes name."""
    told = [f"{one.title()} was no faster than {row.title()} here, and was deleted" for one in slow]
    kept = [one for one in _derived(verdict) if one not in slow]
    figures = {**verdict.result.figures, "files": msgspec.to_builtins(kept)}
    result = msgspec.structs.replace(verdict.result, notes=[*verdict.result.notes, *told], figures=figures)
    return msgspec.structs.replace(verdict, result=result)


def _is_never_faster(form: File, row: File, rows: list[dict[str, Any]]) -> bool:
    """Whether a form was raced, and with no number of threads faster than the file that it was made from."""
    own = {lap["threads"]: lap for lap in rows if lap["key"] == row.key()}
    laps = [lap for lap in rows if lap["key"] == form.key()]
    return bool(laps) and all(lap["threads"] in own and not _is_faster(lap, own[lap["threads"]]) for lap in laps)


def _is_faster(its: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Whether a form is faster than its file on the clock; clearly, and in processor time too, where it is LARGER."""
    if its["bytes"] < LARGER * own["bytes"]:
        return bool(its["median_ms"] < own["median_ms"])
    return all(its[what] < GAIN * own[what] for what in ("median_ms", "cpu_ms"))


def _make_room() -> None:
    """Delete the forms that other code made, and those that were not used for the longest, until all take at most
    MOST_BYTES; they are made again when they are asked for.
    """
    total, kept, old = 0, set[str](), set[str]()
    for place, made_by, found in _all_derived():
        hashes = {one.sha256 for one in found}
        if made_by != code():
            place.unlink(missing_ok=True)
            old |= hashes
            continue
        kept |= hashes
        here = [one for one in found if store.blob(paths.home(), one.sha256).is_file()]
        size = sum(one.bytes for one in here)
        if total + size <= MOST_BYTES:
            total += size
            continue
        for one in here:
            _unlink(one.sha256)
    for sha256 in old - kept:
        _unlink(sha256)


def _all_derived() -> Iterator[tuple[Path, str, list[File]]]:
    """Each verdict's file, the code that gave it and the forms that it tells of; the one used last comes first."""
    for _, place in reversed(stats((paths.home() / "derived").glob("*.json"))):
        # another version may have written it
        with contextlib.suppress(OSError, msgspec.MsgspecError, LookupError):
            verdict = msgspec.json.decode(place.read_bytes(), type=Verdict)
            yield place, verdict.code, _derived(verdict)


def _unlink(sha256: str) -> None:
    with contextlib.suppress(OSError):
        store.blob(paths.home(), sha256).unlink()


def _is_right(located: files.Located, row: File) -> bool:
    try:
        files.file_path(located, row)
    except FetchError:
        return False
    return True
