"""How a text goes into an encoder, a classifier or a tagger: tokenizer, length, pooling, each with the evidence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec

from edge_agent.backends import longest
from edge_agent.files import read_regular
from edge_agent.graphs.graph import MAX_WORDS, THROUGH, FileGraph, behind
from edge_agent.inspect import names
from edge_agent.inspect.kinds import Kind
from edge_agent.inspect.seen import BETTER, TryReading
from edge_agent.inspect.tokens import Tokens, tokens
from edge_agent.manifest import LENGTHS, Seen, TextInput
from edge_agent.types import Net

ROLES = ("type", "segment", "mask", "ids", "word", "token")
"""words in the names of inputs, by which the encoder tells types, mask and ids apart"""
BERT = 512
"""most pieces of a text where nothing says"""
HEADS = ("bert-classifier", "bert-tagger")
"""families of text networks that come with a head"""


def encoder(path: Path, net: Net, kind: Kind, look: TryReading | None) -> Seen:
    """The encoder whose outputs are of `kind`; refused where no tokenizer lies beside it or no pooling makes sense."""
    reasons = [f"family bert: inputs {', '.join(spec.name for spec in net.inputs)}, {kind.why}"]
    vectors = [spec.name for spec in net.outputs if len(spec.shape) == 2]
    said = [name for name in vectors if any(word in name for word in ("embedding", "vector"))]
    pooling, why = "mean", "each token has a vector"
    configured, odd = _pooling(path)
    if said or (vectors and not any(len(spec.shape) == 3 for spec in net.outputs)):
        chosen = (said or vectors)[0].split(":")[0]
        pooling, why = f"output:{chosen}", f"output {chosen} is one vector a text"
    elif configured:
        pooling, why = configured, "1_Pooling/config.json beside the file says so"
    found = tokens(path)
    reasons += found.reasons
    puzzle = _nameless(net) or _unwritable(pooling) or odd or found.refusal
    length, why_length = _length(net, found, None if puzzle else look)
    reasons.append(why_length)
    if puzzle := puzzle or _unfit(length):
        refusal = f"{path}: a text encoder, but {puzzle}"
        return Seen("encode", "bert", [*reasons, f"pooling {pooling}: {why}"], refusal=refusal)
    made, parts = _input(found, length, pooling), {found.role: path.with_name(found.part)}
    seen = Seen("encode", "bert", reasons, text=made)
    if pooling != "mean" or configured:
        if look is not None:
            look(net, seen, parts)
        return replace(seen, reasons=[*reasons, f"pooling {pooling}: {why}"])
    if look is None:
        return replace(seen, reasons=[*reasons, f"pooling mean: {why}, the usual way and not tried"])
    cls = replace(seen, text=msgspec.structs.replace(made, pooling="cls"))
    (mean_worth, mean_said, *_), (cls_worth, cls_said, *_) = look(net, seen, parts), look(net, cls, parts)
    tried = f"mean {mean_worth:.2f} ({mean_said}), cls {cls_worth:.2f} ({cls_said})"
    best, worth = (cls, cls_worth) if cls_worth > max(mean_worth, 0) * BETTER else (seen, mean_worth)
    if worth <= 0:
        refusal = f"{path}: no pooling makes sense on the proof sentences (tried {tried}); write a manifest.toml"
        return replace(seen, refusal=refusal, reasons=[*reasons, f"tried: {tried}"])
    assert best.text is not None
    return replace(best, reasons=[*reasons, f"pooling {best.text.pooling}: tried on the proof sentences: {tried}"])


def head(path: Path, net: Net, kind: Kind, graph: FileGraph, look: TryReading | None) -> Seen:
    """A classifier or a tagger; refused where a tokenizer or the names of its labels are not beside it, or in it."""
    stated, where = names.stated(graph, path, nothing=False)
    reasons = [f"family {kind.family}: inputs {', '.join(spec.name for spec in net.inputs)}, {kind.why}"]

    def refused(why: str) -> Seen:
        return Seen(kind.task, kind.family, reasons, refusal=f"{path}: {kind.family}, {kind.why}; {why}")

    found = tokens(path)
    reasons += found.reasons
    puzzle = _nameless(net) or found.refusal
    length, why_length = _length(net, found, None if puzzle else look)
    reasons.append(why_length)
    if puzzle := puzzle or _unfit(length):
        return refused(puzzle)
    last = [node.op for node in behind(graph, net.outputs[0].name) if node.op not in THROUGH]
    if last[:1] == ["Sigmoid"]:
        return refused("the graph ends in a Sigmoid, so several labels may hold at once, which is not served")
    if kind.classes < 2:
        return refused("one score a text has no classes; nothing serves that")
    put = "put labels.txt beside it, one name a line in the order of its outputs"
    if stated and len(stated) != kind.classes:
        return refused(f"there are {where}; {put}")
    if kind.task == "tag" and not stated:
        return refused(f"nothing says which tag is which; {put} (O, B-PER, I-PER, …)")
    if kind.task == "tag" and not any(name.upper() == "O" for name in stated):
        return refused(f"no tag among {', '.join(stated[:4])} is O, that of a word that belongs to nothing; {put}")
    if not stated and kind.classes == 2:
        return refused(f"it may be a classifier or a next-sentence head, and nothing in the file says; {put}")
    labels, told = names.of_classes(kind.classes, stated, where)
    made = _input(found, length, "mean")
    seen = Seen(kind.task, kind.family, [*reasons, f"labels: {told}"], text=made, labels=labels)
    if look is not None:
        look(net, seen, {found.role: path.with_name(found.part)})
    return seen


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


def _length(net: Net, found: Tokens, look: TryReading | None) -> tuple[int, str]:
    """Most pieces of a text, and why: what the files say or BERT's 512, as far as the network has been seen to take."""
    fixed = next((spec.shape[1] for spec in net.inputs if len(spec.shape) == 2 and spec.shape[1] is not None), None)
    length, why = found.length or BERT, found.why_length or "of BERT"
    if fixed is not None:
        if fixed > LENGTHS[1]:
            return fixed, "fixed by the input"  # each text would be padded to it
        return min(length, fixed), f"max_length {min(length, fixed)}: {why if length < fixed else 'fixed by the input'}"
    if look is None:
        return length, f"max_length {length}: {why}, not tried"
    takes = longest(net, length)
    why = f"the network takes no more, which was tried; {why} {length}" if takes < length else f"{why}, and tried"
    return takes, f"max_length {takes}: {why}"


POOLED = {"mean": "mean", "mean_tokens": "mean", "mean_sqrt_len_tokens": "mean", "cls": "cls", "cls_token": "cls"}
"""sentence-transformers' poolings that are served; the root of the length only makes the vector longer"""


def _pooling(path: Path) -> tuple[str, str]:
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
