"""Makes the faster form of an ONNX file that this device runs in its place; runs in the child of gate/ask.py.

A detector is stopped before its tail (graphs/cut.py), and the decoder of its maps (families/maps.py) has to find what
the whole network finds, cell by cell; else the tail stays, with the reason. What is left is rewritten to pass over
memory less often (graphs/rewrite.py), which is kept where it finds the same, and is faster. A network of any other
kind whose weights lie as int8 and are widened in each run multiplies int8 instead (graphs/dynamic.py), where its
answers agree with its own (gate/agree.py) and it is faster. In a text network, what can be done in one operator is
(graphs/fuse.py), on the same terms. Then ONNX Runtime writes the graph down as this processor runs it best, so that it
loads several times faster. Where this processor's fast products of int8 saturate (backends/onnx.py), exact ones are
what a file gets; with the fast ones it is a second form of it. What comes out is a variant like any other: it proves
itself, is held against its parent and races it. The file that it was made from is never touched.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.backends.onnx import PROVIDERS, optimise, saturates
from edge_agent.errors import ModelError, RefusedError
from edge_agent.gate import timed
from edge_agent.gate.agree import agree
from edge_agent.gate.derive_detector import Form, of_detector
from edge_agent.gate.opened import open_served
from edge_agent.gate.race import stepper
from edge_agent.gate.trial import Agree, Derive, Result, Variant
from edge_agent.graphs.dynamic import dynamic
from edge_agent.graphs.fuse import fuse
from edge_agent.graphs.nodes import Graph
from edge_agent.manifest import File
from edge_agent.registry import store
from edge_agent.tasks.text.encoder import inputs_of
from edge_agent.types import Net

SAVES = 0.97
"""of the processor time of exact products is what those that saturate have to take, to be worth a trial"""
TOKENS, ORDINARY = 24, 100
"""of the shorter of two texts that both forms are shown; ids that every vocabulary has"""
TOKENS_OFF = 0.02
"""how far what is said of them may be off, of the largest number: what is rounded to 8 bits may fall on either side"""

DYNAMIC = "dynamic-int8"
"""the precision of a network whose products were made int8 here"""
SATURATING = "saturating"
"""behind a name, and before a precision: products of int8 may saturate"""


def derive(question: Derive) -> Result:
    """Write the faster form to `question.out`, and perhaps a second one (see `Derive.places`).

    Their rows stand in the figures as "files". RefusedError when none is made.
    """
    (variant,) = question.variants
    out, notes = Path(question.out), list[str]()
    form = (of_detector if question.manifest.task == "detect" else _of_other)(question, notes)
    if not os.environ.get(PROVIDERS):
        optimise(form.source, out)
    elif form.how == "cut":
        # other processors than the one that it is optimised for may be asked to run it
        form.source.replace(out)
    else:
        raise RefusedError("there is nothing to make faster")
    made = msgspec.structs.replace(
        variant.file,
        name=f"{Path(variant.file.name).stem}.{form.how}",
        format="onnx" if os.environ.get(PROVIDERS) else "ort",
        sources=[],
        family=form.family,
        precision=form.precision,
        **form.takes,
    )
    files = [_lies(made, out), *_saturating(question, made, form.source, notes)]
    return Result(True, notes=notes, figures={"files": msgspec.to_builtins(files)})


def _of_other(question: Derive, notes: list[str]) -> Form:
    """The form of what is no detector; `notes` says what was done."""
    (variant,) = question.variants
    form = Form(Path(variant.path), variant.file.family, variant.file.precision)
    if os.environ.get(PROVIDERS):
        return form
    if (quicker := _dynamic(question, notes)) is not None:
        form = form._replace(source=quicker, precision=DYNAMIC, how="dynamic")
    if question.manifest.text is not None:
        form = form._replace(source=_fused(question, form.source, notes))
    return form


def _lies(row: File, path: Path) -> File:
    return msgspec.structs.replace(row, sha256=store.digest(path), bytes=path.stat().st_size)


def _saturating(question: Derive, made: File, source: Path, notes: list[str]) -> list[File]:
    """The form `made` of the network in `source` once more, with products of int8 that may saturate, where they do on
    this processor and are faster than exact ones; `notes` says so.
    """
    out, quick = question.places
    if made.format != "ort" or not saturates() or not _has_int8(source):
        return []
    optimise(source, quick, exact=False)
    title = question.variants[0].file.title()
    second = msgspec.structs.replace(made, name=f"{made.name}.{SATURATING}", precision=f"{SATURATING}-{made.precision}")
    pair = Variant(made, str(out)), Variant(second, str(quick))
    try:
        exact, fast = (stepper(open_served(question.manifest, one, question.parts, 1)) for one in pair)
        share = timed.share(exact, fast)
    except ModelError as error:
        notes.append(f"{title} has exact products of int8: {error}")
        return []
    told = f"{title} has exact products of int8; with those that saturate on this processor it takes {share:.3f} of the"
    told += " processor time"
    notes.append(told if share < SAVES else f"{told}, so it has no form with them")
    return [_lies(second, quick)] if share < SAVES else []


def _has_int8(path: Path) -> bool:
    """Whether it has matrices or kernels of int8."""
    try:
        return any(tensor.dtype == np.int8 and tensor.ndim > 1 for tensor in Graph(path).tensors.values())
    except (IndexError, ValueError):
        return False


def _dynamic(question: Derive, notes: list[str]) -> Path | None:
    """The network with its products in int8, where it has weights for that, answers alike and is faster; else None.
    `notes` says why not.
    """
    (variant,) = question.variants
    path, title = Path(question.out).with_suffix(".dynamic.onnx"), variant.file.title()
    try:
        if not (count := dynamic(Path(variant.path), path)):
            return None
        row = msgspec.structs.replace(variant.file, precision=DYNAMIC)
        made = Variant(row, str(path))
        parts = question.parts
        verdict = agree(Agree(manifest=question.manifest, variants=[made, variant], parts=parts, parent_parts=parts))
        if not verdict.passed:
            raise RefusedError(verdict.reason)
        before, after = (stepper(open_served(question.manifest, each, question.parts, 1)) for each in (variant, made))
        share = timed.share(before, after)
    except ModelError as error:
        notes.append(f"{title} keeps its weights widened: {str(error).removeprefix(f'{variant.path}: ')}")
        return None
    told = f"{count} products of {title} done in int8 take {share:.3f} of its processor time ({verdict.notes[0]})"
    notes.append(told if share < 1 else f"{told}, so it stays as it is")
    return path if share < 1 else None


def _fused(question: Derive, source: Path, notes: list[str]) -> Path:
    """The text network in `source` with fewer operators, where that answers the same and is faster; else `source`.
    `notes` says which.
    """
    (variant,) = question.variants
    path, title = Path(question.out).with_suffix(".fused.onnx"), variant.file.title()
    try:
        if not (what := fuse(source, path)):
            return source
        before, after = (
            open_served(question.manifest, Variant(variant.file, str(p)), question.parts, 1) for p in (source, path)
        )
        _same_tokens(before.net, after.net)
        share = timed.share(stepper(before), stepper(after))
    except ModelError as error:
        notes.append(f"{title} is not fused: {str(error).removeprefix(f'{source}: ')}")
        return source
    told = f"{title} fused ({what}) takes {share:.3f} of its processor time"
    notes.append(told if share < 1 else f"{told}, so it stays as it is")
    return path if share < 1 else source


def _same_tokens(before: Net, after: Net) -> None:
    """RefusedError unless both say the same of two texts, the second half as long and padded where that can be."""
    roles = inputs_of("it", before)
    rows, size = (roles["ids"].shape[0] or 2), (roles["ids"].shape[1] or 2 * TOKENS)
    mask = np.ones((rows, size), np.int64)
    if "mask" in roles:
        mask[-1, size // 2 :] = 0
    ids = np.random.default_rng(0).integers(1, ORDINARY, (rows, size)) * mask
    arrays = {"ids": ids, "mask": mask, "types": np.zeros_like(ids)}
    feed = {spec.name: arrays[role].astype(spec.dtype) for role, spec in roles.items()}
    theirs, ours = before.run(feed), after.run(feed)
    for name, expected in theirs.items():
        # nobody reads what is said of padding
        seen = mask.astype(bool) if expected.shape[:2] == mask.shape else slice(None)
        off, most = np.abs(ours[name][seen] - expected[seen]).max(), np.abs(expected[seen]).max()
        if not off <= TOKENS_OFF * most:
            raise RefusedError(f"fused, {name} is {off:.2g} off, of numbers up to {most:.2g}")
