"""How a text goes into an encoder, a classifier or a tagger: tokenizer, length, pooling, each with the evidence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec

from edge_agent.manifest import LENGTHS, TextInput
from edge_agent.registry import names
from edge_agent.registry.graph import MAX_WORDS, THROUGH, Graph, behind
from edge_agent.registry.kinds import Kind
from edge_agent.registry.seen import BETTER, Look, Seen
from edge_agent.types import Net

ROLES = ("type", "segment", "mask", "ids", "word", "token")
"""words in the names of inputs, by which the encoder tells types, mask and ids apart"""
FEW = 0.01
"""share of word pieces with a capital, up to which they are strays in a vocabulary without"""
HEADS = ("bert-classifier", "bert-tagger")
"""families of text networks that come with a head"""


def encoder(path: Path, net: Net, kind: Kind, look: Look | None) -> Seen:
    """The encoder whose outputs are of `kind`; refused where no tokenizer lies beside it or no pooling makes sense."""
    reasons = [f"family bert: inputs {', '.join(spec.name for spec in net.inputs)}, {kind.why}"]
    vectors = [spec.name for spec in net.outputs if len(spec.shape) == 2]
    said = [name for name in vectors if any(word in name for word in ("embedding", "vector"))]
    pooling, why = "mean", "each token has a vector"
    configured = _pooling(path)
    if said or (vectors and not any(len(spec.shape) == 3 for spec in net.outputs)):
        chosen = (said or vectors)[0].split(":")[0]
        pooling, why = f"output:{chosen}", f"output {chosen} is one vector a text"
    elif configured:
        pooling, why = configured, "1_Pooling/config.json beside the file says so"
    length, why_length = _length(net)
    reasons.append(why_length)
    if puzzle := _nameless(net) or _unfit(length) or _unwritable(pooling):
        return Seen("encode", "bert", reasons, refusal=f"{path}: a text encoder, but {puzzle}")
    part, role, lowercase, told = _words(path)
    if not part:
        refusal = f"{path}: a text encoder, but {told}"
        return Seen("encode", "bert", [*reasons, f"pooling {pooling}: {why}"], refusal=refusal)
    reasons += told.split("; ")
    made = TextInput(pooling=pooling, max_length=length, lowercase=lowercase, **{role: part})  # type: ignore[arg-type]
    seen = Seen("encode", "bert", reasons, text=made)
    if pooling != "mean" or configured:
        return replace(seen, reasons=[*reasons, f"pooling {pooling}: {why}"])
    if look is None:
        return replace(seen, reasons=[*reasons, f"pooling mean: {why}, the usual way and not tried"])
    cls = replace(seen, text=msgspec.structs.replace(made, pooling="cls"))
    parts = {role: path.with_name(part)}
    (mean_worth, mean_said), (cls_worth, cls_said) = look(net, seen, parts), look(net, cls, parts)
    tried = f"mean {mean_worth:.2f} ({mean_said}), cls {cls_worth:.2f} ({cls_said})"
    best, worth = (cls, cls_worth) if cls_worth > max(mean_worth, 0) * BETTER else (seen, mean_worth)
    if worth <= 0:
        refusal = f"{path}: no pooling makes sense on the proof sentences (tried {tried}); write a manifest.toml"
        return replace(seen, refusal=refusal, reasons=[*reasons, f"tried: {tried}"])
    assert best.text is not None
    return replace(best, reasons=[*reasons, f"pooling {best.text.pooling}: tried on the proof sentences: {tried}"])


def head(path: Path, net: Net, kind: Kind, graph: Graph) -> Seen:
    """A classifier or a tagger; refused where a tokenizer or the names of its labels are not beside it, or in it."""
    length, why_length = _length(net)
    stated, where = names.stated(graph, path, nothing=False)
    reasons = [f"family {kind.family}: inputs {', '.join(spec.name for spec in net.inputs)}, {kind.why}", why_length]

    def refused(why: str) -> Seen:
        return Seen(kind.task, kind.family, reasons, refusal=f"{path}: {kind.family}, {kind.why}; {why}")

    if puzzle := _nameless(net) or _unfit(length):
        return refused(puzzle)
    part, role, lowercase, said = _words(path)
    if not part:
        return refused(said)
    reasons += said.split("; ")
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
    made = TextInput(max_length=length, lowercase=lowercase, **{role: part})  # type: ignore[arg-type]
    return Seen(kind.task, kind.family, [*reasons, f"labels: {told}"], text=made, labels=labels)


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


def _length(net: Net) -> tuple[int, str]:
    """Most pieces of a text, and why."""
    length = next((spec.shape[1] for spec in net.inputs if len(spec.shape) == 2 and spec.shape[1] is not None), 512)
    return length, f"max_length {length}: {'fixed by the input' if length != 512 else 'of BERT'}"


def _words(path: Path) -> tuple[str, str, bool, str]:
    """The file of the word pieces beside the network ("" for none), its role, whether text is lower-cased; and why."""
    part = next((n for n in ("tokenizer.json", "vocab.txt") if path.with_name(n).is_file()), "")
    if not part:
        return "", "", True, "no tokenizer.json or vocab.txt beside it; put it there"
    if part == "tokenizer.json":
        return part, "tokenizer", True, f"tokenizer: {part} beside the file"
    lowercase, why = _lowercase(path.with_name(part))
    said = f"lowercase {str(lowercase).lower()}: {why}"
    return part, "vocab", lowercase, f"vocab: {part} beside the file; {said}"


def _pooling(path: Path) -> str:
    """mean or cls as sentence-transformers' 1_Pooling/config.json says; "" when it is not there."""
    config = path.parent / "1_Pooling" / "config.json"
    try:
        table = json.loads(config.read_text(encoding="utf-8")) if config.stat().st_size < MAX_WORDS else {}
    except (OSError, ValueError, RecursionError):
        return ""
    keys = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
    found = [name for name, key in keys.items() if isinstance(table, dict) and table.get(key) is True]
    return found[0] if len(found) == 1 else ""


def _lowercase(vocab: Path) -> tuple[bool, str]:
    """Whether text is lower-cased, as tokenizer_config.json beside the vocabulary says or its pieces; and why."""
    config = vocab.with_name("tokenizer_config.json")
    try:
        table = json.loads(config.read_text(encoding="utf-8")) if config.stat().st_size < MAX_WORDS else {}
    except (OSError, ValueError, RecursionError):
        table = {}
    given = table.get("do_lower_case") if isinstance(table, dict) else None
    if isinstance(given, bool):
        return given, "tokenizer_config.json beside the file says so"
    try:
        with vocab.open(encoding="utf-8", errors="replace") as file:
            lines = file.read(4 * MAX_WORDS).splitlines()
    except OSError:
        return True, "its word pieces cannot be read"
    # marks such as [CLS] or <URL> are written large in any vocabulary
    words = [line for line in lines if not line.startswith(("[", "<")) and line.lower() != line.upper()]
    large = sum(line != line.lower() for line in words)
    return large <= FEW * len(words), f"{large} of {len(words)} word pieces with letters have a capital"
