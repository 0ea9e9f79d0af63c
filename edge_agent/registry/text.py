"""How a text goes into an encoder: tokenizer, length and pooling, each with the evidence for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec

from edge_agent.manifest import TextInput
from edge_agent.registry.graph import MAX_WORDS
from edge_agent.registry.kinds import Kind
from edge_agent.registry.seen import BETTER, Look, Seen
from edge_agent.types import Net


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
    length = next((spec.shape[1] for spec in net.inputs if len(spec.shape) == 2 and spec.shape[1] is not None), 512)
    reasons.append(f"max_length {length}: {'fixed by the input' if length != 512 else 'of BERT'}")
    part = next((n for n in ("tokenizer.json", "vocab.txt") if path.with_name(n).is_file()), None)
    if part is None:
        refusal = f"{path}: a text encoder, but no tokenizer.json or vocab.txt beside it; put it there"
        return Seen("encode", "bert", [*reasons, f"pooling {pooling}: {why}"], refusal=refusal)
    role = "tokenizer" if part == "tokenizer.json" else "vocab"
    lowercase = role == "tokenizer" or not _cased(path.with_name(part))
    reasons.append(f"{role}: {part} beside the file")
    if role == "vocab":
        reasons.append(f"lowercase {str(lowercase).lower()}: {'no' if lowercase else 'a'} word piece has a capital")
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


def _cased(vocab: Path) -> bool:
    """Whether a word piece, the marks in brackets aside, has a capital letter."""
    try:
        with vocab.open(encoding="utf-8", errors="replace") as file:
            lines = file.read(4 * MAX_WORDS).splitlines()
    except OSError:
        return False
    return any(line != line.lower() and not line.startswith("[") for line in lines)
