"""What a bare file is, found out in a child process: not even its trial runs take place in the agent's own.

The child opens the file, reads it (inspect/inspect.py) and tries what it leaves open on pictures (gate/tried.py). What
it found is remembered like every verdict (gate/ask.py), under the file, what lies beside it and the pictures.
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
from edge_agent.gate.trial import LIMITS, Result, Trial, Variant
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
    result, before = _asked(
        "read", path, SUFFIXES[path.suffix.lower()], {role: str(part.absolute()) for role, part in given.items()}, told
    )
    found = _as(Reading, result, path)
    if before == str(path):
        return found
    return Reading(replace(found.seen, refusal=found.seen.refusal.replace(before, str(path))), found.ends)


def seen(path: Path) -> Seen:
    """Only what is to be known to serve it; see `read`."""
    return read(path).seen


def ends(path: Path, format: str) -> Ends:
    """Inputs, outputs and engine of a network file. RefusedError, one line."""
    return _as(Ends, _asked("load", path, format, {})[0], path)


def _as(kind: type[Declared], result: Result, path: Path) -> Declared:
    """What the child found, its bounds checked. RefusedError: the child read a hostile file, so it is not believed."""
    try:
        return msgspec.convert(result.figures, kind)
    except msgspec.ValidationError as error:
        why = toml.explain(str(error), kind, result.figures)
        raise RefusedError(f"{path}: what it declares cannot be used ({why}); export it anew") from None


def _asked(
    what: str, path: Path, format: str, parts: dict[str, str], told: Mapping[str, str] = {}
) -> tuple[Result, str]:
    """What the child found, and the path under which it knew the file. RefusedError."""
    if not path.is_file() or not os.access(path, os.R_OK):
        raise RefusedError(f"{path}: no file that can be read; check the path and its owner")
    try:
        digest = store.digest(path)
    except OSError as error:
        raise RefusedError(f"{path}: cannot be read ({error.strerror}); check the path and its owner") from None
    row = File(path.name, format, digest, path.stat().st_size)  # type: ignore[arg-type]
    trial = Trial(what, [Variant(row, str(path))], 0, LIMITS, parts=parts, told=dict(told))  # type: ignore[arg-type]
    verdict = ask("proofs", trial)
    result, before = verdict.result, verdict.model
    if not result.passed:
        reason = result.reason.replace(before, str(path))
        raise RefusedError(reason if str(path) in reason else f"{path}: {reason}")
    return result, before


# ── in the child ─────────────────────────────────────────────────────────────────────────────────────────


def held(trial: Trial, net: Net) -> Result:
    """What `read` asks for, of a network that is open. RefusedError for no known family."""
    from edge_agent.gate.tried import looker
    from edge_agent.inspect.inspect import inspect

    proofs = [Path(part) for role, part in sorted(trial.parts.items()) if role.startswith("proof ")]
    found = inspect(Path(trial.variants[0].path), net, looker(proofs), trial.told)
    return Result(True, figures={"seen": msgspec.to_builtins(found), "ends": declared(net)})


def declared(net: Net) -> dict[str, object]:
    """The network as `Ends`, in plain values. RefusedError for a scale that is no number."""
    for spec in (*net.inputs, *net.outputs):
        if not math.isfinite(spec.scale):
            raise RefusedError(f'the scale of its "{clean(spec.name)}" is {spec.scale}; quantize it anew')
    plain = Ends(list(net.inputs), list(net.outputs), net.engine, list(net.reasons))
    return dict(msgspec.to_builtins(plain))
