"""May this file of a model serve? It is the right one, answers sanely, and agrees with what it was made from.

The only place where these three are joined; each is tried in the child of gate/ask.py and remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from edge_agent.errors import FetchError, ManifestError, RefusedError
from edge_agent.gate.ask import ask
from edge_agent.gate.trial import LIMITS, Agree, Heads, Limits, Prove, Variant
from edge_agent.gate.verdicts import Verdict
from edge_agent.manifest import File, Manifest, Seen, most_precise
from edge_agent.registry import catalogue
from edge_agent.registry.files import Located, Say, file_path, is_here, parts_of

Parts = Mapping[str, Path]
"""role -> verified file"""


class Admitted(NamedTuple):
    """A file that may serve."""

    path: Path
    note: str
    """how far it agrees with what it was made from, one line; empty for what is no variant"""
    proof: Verdict


def admit(
    located: Located,
    row: File,
    parts: Parts,
    threads: int = 0,
    *,
    again: bool = False,
    pull: bool = False,
    say: Say | None = None,
) -> Admitted:
    """Admit a file of a model, or look up that it was (`again`: try it anew). `pull` fetches it, telling `say` of it.

    Raises FetchError for a file that is not here or damaged, RefusedError with the reason, one line.
    """
    path = file_path(located, row, pull=pull, say=say)
    proof = prove(located.manifest, row, path, parts, threads, again=again)
    return Admitted(path, _against_parent(located, row, path, parts, threads, again=again), proof)


def prove(
    manifest: Manifest,
    row: File,
    path: Path,
    parts: Parts,
    threads: int = 0,
    *,
    again: bool = False,
    limits: Limits = LIMITS,
) -> Verdict:
    """Let a file prove that it answers sanely. RefusedError with the reason, one line."""
    question = Prove(
        manifest=manifest, variants=[_variant(row, path)], parts=absolute(parts), threads=threads, limits=limits
    )
    return _passed(ask(question, again=again), manifest, row)


def _against_parent(located: Located, row: File, path: Path, parts: Parts, threads: int, *, again: bool) -> str:
    """How far a variant agrees with what it was made from, on sealed samples; see `Admitted.note`.

    Raises RefusedError when that is less than the manifest's max_drop allows. A parent that is not here, or makes no
    sense, does not keep a variant from serving.
    """
    manifest, parent = located.manifest, located
    try:
        if manifest.parent is not None:
            # what the workshop made may come from a bare file
            parent = catalogue.locate(manifest.parent, read=seen)
        origin = parent.manifest.original()
        if origin.key() == row.key():
            return ""
        its_path, its_parts = file_path(parent, origin), parts_of(parent)
        prove(parent.manifest, origin, its_path, its_parts, threads)
    except (FetchError, ManifestError, RefusedError) as error:
        return f"{row.title()} is not held against its parent: {error}"
    question = Agree(
        manifest=manifest,
        variants=[_variant(row, path), _variant(origin, its_path)],
        parts=absolute(parts),
        threads=threads,
        # a model that was made from another one may bear its name
        parent=parent.manifest if manifest.parent is not None else None,
        parent_parts=absolute(its_parts),
    )
    return f"{row.title()}: {_passed(ask(question, again=again), manifest, row).result.notes[0]}"


def try_heads(
    located: Located, sound: set[str], parts: Parts, *, again: bool = False
) -> list[tuple[str, str, list[str]]]:
    """Hold each head beside an encoder (mlm, nsp), on the first network of `sound` (names of those that may serve),
    against its most precise form on the most precise of them (gate/heads.py).

    The name of each, why it is refused ("" when it is not), and notes.
    """
    tried = []
    networks = [row for row in located.manifest.networks() if row.title() in sound]
    for role in ("mlm", "nsp"):
        rows = [row for row in located.manifest.file if row.role == role and is_here(located, row)]
        for row in rows:
            compared = [networks[0], row, most_precise(networks), most_precise(rows)]
            try:
                tried.append((row.name, *_try_head(located, compared, parts, again=again)))
            except FetchError as error:
                tried.append((row.name, str(error), []))
    return tried


def head_of(located: Located, network: File, parts: Parts, role: str) -> tuple[Path, File]:
    """The first head of a role that may serve behind `network`, and its row. ManifestError where none lies beside it,
    FetchError where it is damaged, RefusedError where it does not say what its parent says.
    """
    rows = [row for row in located.manifest.file if row.role == role]
    if not rows:
        raise ManifestError(f'{located.manifest.name}: no [[file]] of role "{role}"')
    compared = [network, rows[0], most_precise(located.manifest.networks()), most_precise(rows)]
    refusal, _ = _try_head(located, compared, parts, again=False)
    if refusal:
        raise RefusedError(refusal)
    return file_path(located, rows[0]), rows[0]


def _try_head(located: Located, compared: list[File], parts: Parts, *, again: bool) -> tuple[str, list[str]]:
    """Why the second of these is refused ("" when it is not), and notes. Raises FetchError."""
    manifest = located.manifest
    variants = [_variant(one, file_path(located, one)) for one in compared]
    result = ask(Heads(manifest=manifest, variants=variants, parts=absolute(parts)), again=again).result
    return result.reason and f"{manifest.name}: {compared[1].name}: {result.reason}", result.notes


def seen(path: Path) -> Seen:
    """What a bare file is. A model of the registry needs none of what finds that out, so it is imported here."""
    from edge_agent.gate import read

    return read.seen(path)


def absolute(parts: Parts) -> dict[str, str]:
    """The parts as a question names them."""
    return {role: str(part.absolute()) for role, part in parts.items()}


def _variant(row: File, path: Path) -> Variant:
    return Variant(row, str(path.absolute()))


def _passed(verdict: Verdict, manifest: Manifest, row: File) -> Verdict:
    if not verdict.result.passed:
        raise RefusedError(f"{manifest.name}: {row.title()} is refused: {verdict.result.reason}")
    return verdict
