"""What a bare file is, found out in a child process: not even its trial runs take place in the agent's own.

The child opens the file, reads it (inspect/inspect.py) and tries what it leaves open on pictures (gate/worth.py). What
it found is remembered like every verdict (gate/verdicts.py), under the file, what lies beside it and the pictures.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec

from edge_agent import toml
from edge_agent.errors import RefusedError
from edge_agent.gate.ask import ask
from edge_agent.gate.trial import Load, Read, Result, Variant
from edge_agent.graphs.graph import clean
from edge_agent.inspect import tokens
from edge_agent.manifest import File, Seen
from edge_agent.registry import store
from edge_agent.registry.catalogue import SUFFIXES
from edge_agent.types import Net, TensorSpec

BESIDE = ("labels.txt", "tokenizer.json", "vocab.txt", "1_Pooling/config.json", *tokens.BESIDE)
"""files that inspection reads where they lie beside the model"""


class Ends(msgspec.Struct, frozen=True):
    """A network as its file declares it, and the engine that opened it."""

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    engine: str
    reasons: list[str]


class Reading(msgspec.Struct, frozen=True):
    """What a bare file was found to be."""

    seen: Seen
    ends: Ends


Declared = TypeVar("Declared", Ends, Reading)


def read(path: Path, proofs: Sequence[Path] = (), told: Mapping[str, str] = {}) -> Reading:
    """Read a bare file; `proofs`: pictures of what it is for; `told`: what the user says of its input (picture.TOLD).

    RefusedError, one line, for what cannot be read.
    """
    beside = {name: path.parent / name for name in BESIDE if (path.parent / name).is_file()}
    given = {**beside, **{f"proof {i}": proof for i, proof in enumerate(proofs)}}
    parts = {role: str(part.absolute()) for role, part in given.items()}
    variant = _variant(path, SUFFIXES[path.suffix.lower()])
    result, before = _asked(Read(variants=[variant], parts=parts, told=dict(told)), path)
    found = _as(Reading, result, path)
    if before == str(path):
        return found
    return Reading(replace(found.seen, refusal=found.seen.refusal.replace(before, str(path))), found.ends)


def seen(path: Path) -> Seen:
    """Only what is to be known to serve it; see `read`."""
    return read(path).seen


def ends(path: Path, format: str, parts: Mapping[str, Path] | None = None) -> Ends:
    """Inputs, outputs and engine of a network file, with the parts beside it. RefusedError, one line."""
    given = {role: str(part.absolute()) for role, part in (parts or {}).items()}
    return _as(Ends, _asked(Load(variants=[_variant(path, format)], parts=given), path)[0], path)


def _as(kind: type[Declared], result: Result, path: Path) -> Declared:
    """What the child found, its bounds checked. RefusedError: the child read a hostile file, so it is not believed."""
    try:
        return msgspec.convert(result.figures, kind)
    except msgspec.ValidationError as error:
        why = toml.explain(str(error), kind, result.figures)
        raise RefusedError(f"{path}: what it declares cannot be used ({why}); export it anew") from None


def _asked(question: Load | Read, path: Path) -> tuple[Result, str]:
    """What the child found, and the path under which it knew the file. RefusedError."""
    verdict = ask(question)
    result, before = verdict.result, verdict.model
    if not result.passed:
        reason = result.reason.replace(before, str(path))
        raise RefusedError(reason if str(path) in reason else f"{path}: {reason}")
    return result, before


def _variant(path: Path, format: str) -> Variant:
    """The file as it lies there now. RefusedError for one that cannot be read."""
    if not path.is_file() or not os.access(path, os.R_OK):
        raise RefusedError(f"{path}: no file that can be read; check the path and its owner")
    try:
        row = File(path.name, format, store.digest(path), path.stat().st_size)  # type: ignore[arg-type]
    except OSError as error:
        raise RefusedError(f"{path}: cannot be read ({error.strerror}); check the path and its owner") from None
    return Variant(row, str(path))


# ── in the child ─────────────────────────────────────────────────────────────────────────────────────────


def load(question: Load) -> Result:
    """Answer `Load`: only open the file, and say what it declares."""
    return Result(True, figures=declared(_opened(question)))


def look(question: Read) -> Result:
    """Answer `Read`. RefusedError for no known family."""
    from edge_agent.gate.worth import looker
    from edge_agent.inspect.inspect import inspect

    net = _opened(question)
    proofs = [Path(part) for role, part in sorted(question.parts.items()) if role.startswith("proof ")]
    found = inspect(Path(question.variants[0].path), net, looker(proofs), question.told)
    return Result(True, figures={"seen": msgspec.to_builtins(found), "ends": declared(net)})


def _opened(question: Load | Read) -> Net:
    from edge_agent.backends import open_net
    from edge_agent.gate.opened import bounded

    (variant,) = question.variants
    parts = {role: Path(part) for role, part in question.parts.items()}
    net = open_net(Path(variant.path), variant.file.format, question.threads, parts=parts)
    bounded(net)
    return net


def declared(net: Net) -> dict[str, object]:
    """The network as `Ends`, in plain values. RefusedError for a scale that is no number."""
    for spec in (*net.inputs, *net.outputs):
        if not math.isfinite(spec.scale):
            raise RefusedError(f'the scale of its "{clean(spec.name)}" is {spec.scale}; quantize it anew')
    plain = Ends(list(net.inputs), list(net.outputs), net.engine, list(net.reasons))
    return dict(msgspec.to_builtins(plain))
