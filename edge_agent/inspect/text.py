"""How a text goes into an encoder, a classifier or a tagger: tokenizer, length, pooling, each with the evidence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec

from edge_agent.backends import longest
from edge_agent.files import read_regular
from edge_agent.graphs.graph import MAX_WORDS
from edge_agent.inspect import names
from edge_agent.inspect.kinds import Kind
from edge_agent.inspect.model_file import ModelFile
from edge_agent.inspect.readings import BETTER
from edge_agent.inspect.tokens import Tokens, tokens
from edge_agent.inspect.worth import TryReading
from edge_agent.manifest import LENGTHS, Seen, TextInput
from edge_agent.types import Net

ROLES = ("type", "segment", "mask", "ids", "word", "token")
"""words in the names of inputs, by which the encoder tells types, mask and ids apart"""
BERT = 512
"""most pieces of a text where nothing says"""
UNLABELLED = ("bert-mlm", "bert-nsp", "bert-qa")
HEADS = ("bert-classifier", "bert-tagger", *UNLABELLED)
"""families of text networks that come with a head"""


def encoder(file: ModelFile, kind: Kind) -> Seen:
    """The encoder whose outputs are of `kind`; refused where no tokenizer lies beside it or no pooling makes sense."""
    net = file.net
    pooling, why, odd = _pooling(file)
    found, length, more, puzzle = _pieces(file, _unwritable(pooling or "mean") or odd)
    reasons = [f"family bert: inputs {', '.join(spec.name for spec in net.inputs)}, {kind.why}", *more]
    pooled = f"pooling {pooling or 'mean'}: {why}"
    if puzzle:
        return Seen("encode", "bert", [*reasons, pooled], refusal=f"{file.path}: a text encoder, but {puzzle}")
    parts = {found.role: file.path.with_name(found.part)}
    seen = Seen("encode", "bert", reasons, text=_input(found, length, pooling or "mean"))
    if file.look is None:
        untried = "" if pooling else ", the usual way and not tried"
        return replace(seen, reasons=[*reasons, f"{pooled}{untried}"])
    if not pooling:
        return _mean_or_cls(file, seen, parts, file.look)
    file.look(net, seen, parts)
    return replace(seen, reasons=[*reasons, pooled])


def _mean_or_cls(file: ModelFile, seen: Seen, parts: dict[str, Path], look: TryReading) -> Seen:
    """`seen`, which takes the mean of the tokens, or their first one where that does clearly better."""
    assert seen.text is not None
    cls = replace(seen, text=msgspec.structs.replace(seen.text, pooling="cls"))
    mean_worth, cls_worth = look(file.net, seen, parts), look(file.net, cls, parts)
    tried = f"mean {mean_worth.value:.2f} ({mean_worth.what}), cls {cls_worth.value:.2f} ({cls_worth.what})"
    is_cls = cls_worth.value > max(mean_worth.value, 0) * BETTER
    if (cls_worth if is_cls else mean_worth).value <= 0:
        refusal = f"{file.path}: no pooling makes sense on the proof sentences (tried {tried}); write a manifest.toml"
        return replace(seen, refusal=refusal, reasons=[*seen.reasons, f"tried: {tried}"])
    pooling = f"pooling {'cls' if is_cls else 'mean'}: tried on the proof sentences: {tried}"
    return replace(cls if is_cls else seen, reasons=[*seen.reasons, pooling])


def head(file: ModelFile, kind: Kind) -> Seen:
    """A network with a head; refused where a tokenizer or the names of its labels are not beside it, or in it."""
    if kind.family in UNLABELLED:
        return _unlabelled(file, kind)
    stated, where = names.stated(file.graph, file.path, nothing=False)
    found, length, more, puzzle = _pieces(file)
    reasons = [f"family {kind.family}: inputs {', '.join(spec.name for spec in file.net.inputs)}, {kind.why}", *more]
    if puzzle := puzzle or _unserved(kind, file.last, stated, where):
        return Seen(kind.task, kind.family, reasons, refusal=f"{file.path}: {kind.family}, {kind.why}; {puzzle}")
    labels, told = names.of_classes(kind.classes, stated, where)
    made = _input(found, length, "mean")
    seen = Seen(kind.task, kind.family, [*reasons, f"labels: {told}"], text=made, labels=labels)
    if file.look is not None:
        file.look(file.net, seen, {found.role: file.path.with_name(found.part)})
    return seen


def _unlabelled(file: ModelFile, kind: Kind) -> Seen:
    """A head whose outputs need no names; refused where no tokenizer lies beside it."""
    found, length, more, puzzle = _pieces(file)
    reasons = [f"family {kind.family}: inputs {', '.join(spec.name for spec in file.net.inputs)}, {kind.why}", *more]
    if puzzle:
        return Seen(kind.task, kind.family, reasons, refusal=f"{file.path}: {kind.family}, {kind.why}; {puzzle}")
    seen = Seen(kind.task, kind.family, reasons, text=_input(found, length, "mean"))
    if file.look is not None:
        file.look(file.net, seen, {found.role: file.path.with_name(found.part)})
    return seen


def _unserved(kind: Kind, last: str, stated: list[str], where: str) -> str:
    """Why a head is not served whose graph ends in `last`, with the names that the file states; "" when it is."""
    put = "put labels.txt beside it, one name a line in the order of its outputs"
    tags = kind.task == "tag"
    puzzles = (
        (
            last == "Sigmoid",
            "the graph ends in a Sigmoid, so several labels may hold at once, which is not served",
        ),
        (kind.classes < 2, "one score a text has no classes; nothing serves that"),
        (stated and len(stated) != kind.classes, f"there are {where}; {put}"),
        (tags and not stated, f"nothing says which tag is which; {put} (O, B-PER, I-PER, …)"),
        (
            tags and not any(name.upper() == "O" for name in stated),
            f"no tag among {', '.join(stated[:4])} is O, that of a word that belongs to nothing; {put}",
        ),
        (
            not stated and kind.classes == 2,
            f"it may be a classifier or a next-sentence head, and nothing in the file says; {put}",
        ),
    )
    return next((why for holds, why in puzzles if holds), "")


def _pieces(file: ModelFile, puzzle: str = "") -> tuple[Tokens, int, list[str], str]:
    """The tokenizer beside the file, most pieces of a text, the reasons, and why it is not served: `puzzle` or what
    else is found; "" when it is.
    """
    found = tokens(file.path)
    puzzle = _nameless(file.net) or puzzle or found.refusal
    length, why = _length(file.net, found, may_try=file.look is not None and not puzzle)
    return found, length, [*found.reasons, why], puzzle or _unfit(length)


def _input(found: Tokens, length: int, pooling: str) -> TextInput:
    return TextInput(
        pooling=pooling,
        max_length=length,
        lowercase=found.lowercase,
        rules=found.rules,
        **{found.role: found.part},  # type: ignore[arg-type]
    )


def _nameless(net: Net) -> str:
    """Why it is open which of several inputs are ids, mask and types; "" when their names tell."""
    odd = [spec.name for spec in net.inputs if not any(word in spec.name.lower() for word in ROLES)]
    if len(net.inputs) == 1 or not odd:
        return ""
    return (
        f"nothing says what goes into {', '.join(odd)}; export it with the inputs called input_ids, attention_mask "
        "and token_type_ids"
    )


def _unfit(length: int) -> str:
    """Why a text of that many pieces is not served; "" when it is."""
    least, most = LENGTHS
    return "" if least <= length <= most else f"its input takes {length} tokens; {least} to {most} are served"


def _unwritable(pooling: str) -> str:
    """Why a manifest cannot name this output; "" when it can."""
    name = pooling.removeprefix("output:")
    return "" if name and name.isprintable() else f"its output is called {name!a}; export it under a plain name"


def _fixed(net: Net) -> int | None:
    """The number of pieces that goes in; None where it is open."""
    return next((spec.shape[1] for spec in net.inputs if len(spec.shape) == 2 and spec.shape[1] is not None), None)


def _length(net: Net, found: Tokens, may_try: bool) -> tuple[int, str]:
    """Most pieces of a text, and why: what the files say or BERT's 512, as far as the network has been seen to take."""
    fixed = _fixed(net)
    length, why = found.length or BERT, found.why_length or "of BERT"
    if fixed is not None and fixed > LENGTHS[1]:
        return fixed, "fixed by the input"  # each text would be padded to it
    if fixed is not None:
        return min(length, fixed), f"max_length {min(length, fixed)}: {why if length < fixed else 'fixed by the input'}"
    if not may_try:
        return length, f"max_length {length}: {why}, not tried"
    takes = longest(net, length)
    why = f"the network takes no more, which was tried; {why} {length}" if takes < length else f"{why}, and tried"
    return takes, f"max_length {takes}: {why}"


def _pooling(file: ModelFile) -> tuple[str, str, str]:
    """output:NAME, mean or cls, "" where nothing says; why; and why what the files say cannot be served, else ""."""
    configured, odd = _configured(file.path)
    name = _vector(file.net)
    if name is not None:
        chosen = name.split(":")[0]
        return f"output:{chosen}", f"output {chosen} is one vector a text", odd
    if configured:
        return configured, "1_Pooling/config.json beside the file says so", odd
    return "", "each token has a vector", odd


def _vector(net: Net) -> str | None:
    """The output that is one vector a text: whose name says so, or any where none has a vector a token."""
    vectors = [spec.name for spec in net.outputs if len(spec.shape) == 2]
    named = [name for name in vectors if "embedding" in name or "vector" in name]
    if not named and any(len(spec.shape) == 3 for spec in net.outputs):
        return None
    return next(iter(named or vectors), None)


POOLED = {"mean": "mean", "mean_tokens": "mean", "mean_sqrt_len_tokens": "mean", "cls": "cls", "cls_token": "cls"}
"""sentence-transformers' poolings that are served; the root of the length only makes the vector longer"""


def _configured(path: Path) -> tuple[str, str]:
    """mean or cls as sentence-transformers' 1_Pooling/config.json says, "" when it is not there; and why it cannot be
    served.
    """
    config = path.parent / "1_Pooling" / "config.json"
    try:
        table = json.loads(read_regular(config, MAX_WORDS).decode())
    except (OSError, ValueError, RecursionError):
        return "", ""
    if not isinstance(table, dict):
        return "", ""
    said = [
        key.removeprefix("pooling_mode_") for key, on in table.items() if key.startswith("pooling_mode_") and on is True
    ]
    said += [str(table["pooling_mode"])] if table.get("pooling_mode") else []
    found = {POOLED.get(name, "") for name in said}
    if "" in found or len(found) > 1:
        return "", f"1_Pooling/config.json beside it says {' and '.join(said)}, which is not served"
    return next(iter(found), ""), ""
