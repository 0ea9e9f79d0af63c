"""What a network is that is no detector: by what goes in, what comes out, and the table its tokens are looked up in."""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.families.heads import shape
from edge_agent.graphs.graph import FileGraph, behind, embedding
from edge_agent.types import Net, TensorSpec

TEXT = ("ids", "mask", "segment", "token", "type")
"""words in the names of a text model's inputs"""
VOCABULARY = 5000
"""a last axis beyond this counts words, where no table of the graph says how many there are"""
LINE_HEIGHTS = (32, 48, 64)
"""pixels of a line of text, as OCR recognisers take them"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A task, the family of its head, and why."""

    task: str
    family: str
    why: str
    classes: int = 0


def axes(spec: TensorSpec) -> tuple[int | None, ...]:
    """The shape without axes of 1 behind the first."""
    return (*spec.shape[:1], *(axis for axis in spec.shape[1:] if axis != 1))


def is_text(net: Net, graph: FileGraph) -> bool:
    """Whether token ids go in: integers [B, L] by name, or looked up in a table."""
    flat = [s for s in net.inputs if len(s.shape) == 2]
    first = [s for s in flat if s.dtype in ("int32", "int64")]
    named = [s for s in first if any(word in s.name.lower() for word in TEXT)]
    return bool(named or any("ids" in s.name.lower() for s in flat) or any(embedding(graph, s.name) for s in first))


def text(net: Net, graph: FileGraph) -> Kind | None:
    """Encoder, masked words, next sentence, tags, answers or classes, from the shapes of what comes out."""
    table = next((t for s in net.inputs if (t := embedding(graph, s.name))), None)
    where = f"the table of {table[0]} words by {table[1]}" if table else "no table of words was found"
    names = {s.name.split(":")[0].lower(): s for s in net.outputs}
    pair = [s for s in net.outputs if len(s.shape) == 2]
    if len(pair) == 2 and all("start" in s.name.lower() or "end" in s.name.lower() for s in pair):
        return Kind("answer", "bert-qa", f"outputs {' and '.join(s.name for s in pair)}: one score a token each")
    if len(pair) == len(net.outputs) == 2 and all(s.shape[1] in (None, net.inputs[0].shape[1]) for s in pair):
        return Kind("answer", "bert-qa", f"two outputs of one score a token: {shape(pair[0])}, {shape(pair[1])}")
    words = [s for s in net.outputs if len(s.shape) == 3]
    if words and not any("embedding" in name for name in names):
        spec = words[0]
        width = spec.shape[2]
        seen = f"output {spec.name} {shape(spec)}"
        if width and (width == (table[0] if table else 0) or (not table and width > VOCABULARY)):
            return Kind("fill-mask", "bert-mlm", f"{seen} has one score a word of the vocabulary ({where})", width)
        hidden = spec.name.lower().find("hidden") >= 0 or (table and width == table[1]) or _norm(graph, spec.name)
        if not hidden and width == 2:
            return Kind("answer", "bert-qa", f"{seen}: start and end scores for each token ({where})")
        if not hidden and width and (table or width < 64):
            return Kind("tag", "bert-tagger", f"{seen}: {width} tags for each token ({where})", width)
        return Kind("encode", "bert", f"{seen} has one vector a token ({where})")
    vectors = [s for s in pair if any(word in s.name.lower() for word in ("embedding", "pool", "vector"))]
    if vectors or words:
        return Kind("encode", "bert", f"output {(vectors or words)[0].name} is one vector a text")
    if len(pair) == 1:
        spec = pair[0]
        n = spec.shape[1] or 0
        seen = f"output {spec.name} {shape(spec)}"
        if any(word in spec.name.lower() for word in ("seq_rel", "nsp", "next")) and n == 2:
            return Kind("next-sentence", "bert-nsp", f"{seen}: whether one sentence follows the other ({where})", 2)
        if n and table and n == table[1]:
            return Kind("encode", "bert", f"{seen} is one vector a text, as wide as {where}")
        extra = ", or next sentence: the names do not say" if n == 2 else ""
        return Kind("classify", "bert-classifier", f"{seen}: {n or 'some'} classes for each text{extra} ({where})", n)
    return None


def _norm(graph: FileGraph, name: str) -> bool:
    """Whether a layer normalisation gives this output, as it does a BERT's hidden states."""
    chain = [node.op for node in behind(graph, name)]
    return bool(chain) and (chain[0] in ("LayerNormalization", "SkipLayerNormalization") or chain[:2] == ["Add", "Mul"])


def hidden(net: Net) -> Kind | None:
    """A head that stands alone behind an encoder: hidden states go in."""
    if len(net.inputs) != 1 or len(net.inputs[0].shape) != 3 or "hidden" not in net.inputs[0].name.lower():
        return None
    spec = net.outputs[0]
    width = spec.shape[-1] or 0
    seen = f"hidden states {shape(net.inputs[0])} go in, {spec.name} {shape(spec)} comes out"
    if len(spec.shape) == 3 and width > VOCABULARY:
        return Kind("fill-mask", "bert-mlm", f"{seen}: one score a word, the head of an encoder beside it", width)
    if len(spec.shape) == 3:
        return Kind(
            "tag", "bert-tagger", f"{seen}: {width} tags for each token, the head of an encoder beside it", width
        )
    if len(spec.shape) == 2 and width == 2:
        return Kind("next-sentence", "bert-nsp", f"{seen}: two scores a text, the head of an encoder beside it", 2)
    return None


def picture(net: Net, order: str) -> Kind | None:
    """What is made of one picture, when it is no detector's head. `order`: layout, "" for a picture of one colour."""
    spec = net.inputs[0]
    outs = net.outputs
    same = [s for s in outs if s.shape[1:] == spec.shape[1:] and len(s.shape) == 4]
    codes = [s for s in outs if len(s.shape) == 2]
    if same and len(codes) >= 2:
        return Kind(
            "anomaly", "vae", f"a picture {shape(same[0])} comes back with {len(codes)} codes, mean and variance"
        )
    if same and None not in spec.shape[1:]:
        return Kind("anomaly", "autoencoder", f"a picture of the same shape {shape(same[0])} comes back")
    if len(outs) != 1:
        return None
    height, width = spec.shape[1:3] if order == "NHWC" else spec.shape[2:]
    out, seen = outs[0], f"output {outs[0].name} {shape(outs[0])}"
    if len(out.shape) == 3 and (height in LINE_HEIGHTS) and (width is None or width >= 2 * height):
        n = out.shape[2] or 0
        return Kind("read", "ocr-recogniser", f"a line {height} pixels high goes in, {seen}: {n} characters a step", n)
    rest = (*axes(out), 1)
    if len(rest) in (2, 3) and rest[1] and len(out.shape) in (2, 4):
        many = f"{rest[1]} numbers" if rest[1] > 1 else "one number"
        return Kind("recognise", "image-classifier", f"{seen}: {many} for each picture", rest[1])
    return _maps(out, seen, (height, width)) if len(out.shape) == 4 else None


def _maps(out: TensorSpec, seen: str, size: tuple[int | None, ...]) -> Kind | None:
    """Numbers for each pixel or cell of a picture of `size`; None where its sides are of no such map."""
    for channels, sides in ((out.shape[1], out.shape[2:]), (out.shape[3], out.shape[1:3])):
        if channels == 1 and (sides == size or None in sides):
            what = "as of where text is, of what stands before the rest, or of how far it is"
            return Kind("segment", "pixel-map", f"{seen}: one number for each pixel of the picture, {what}")
        if channels and sides == size:
            return Kind("segment", "segmentation", f"{seen}: {channels} numbers for each pixel, as of classes")
        (high, wide), (height, width) = ([side or 0 for side in both] for both in (sides, size))
        if channels and high * 64 >= height and abs(high * width - wide * height) <= height + width:
            what = "as of classes or of the points of a body"
            return Kind("segment", "cell-maps", f"{seen}: maps of {channels} numbers for each cell, {what}")
    return None


IMAGENET = (1000, 1001)
"""classes of the networks that most others begin with"""


def no_classes(net: Net, kind: Kind, shares: bool) -> str:
    """Why the numbers that come out for a picture are not taken for classes, where nothing names them; "" where they
    are. `shares`: whether they are probabilities.
    """
    high, wide = (net.inputs[0].shape[axis] or 0 for axis in ((2, 3) if net.inputs[0].shape[1] == 3 else (1, 2)))
    put = "if they are classes, put labels.txt beside it, one name a line"
    if high in LINE_HEIGHTS and wide >= 2 * high:
        return f"a picture of {wide}x{high} is a line of text, of which it may say the direction; {put}"
    if shares or kind.classes in IMAGENET:
        return ""
    points = f", or {kind.classes // 2} points such as landmarks" if kind.classes % 2 == 0 else ""
    return f"nothing says what they are: a vector that stands for the picture{points}; {put}"


def sound(net: Net) -> Kind | None:
    """Voice activity: samples and a state go in, one probability and the state come out."""
    rates = [s for s in net.inputs if s.name.lower() in ("sr", "sample_rate")]
    states = [
        s for s in net.inputs if len(s.shape) == 3 and s.name.lower() in ("state", "h", "c", "h0", "c0", "hn", "cn")
    ]
    score = [s for s in net.outputs if axes(s)[1:] in ((), (None,)) and s.dtype.startswith("float")]
    flat = [s for s in net.inputs if len(s.shape) == 2 and s.dtype.startswith("float")]
    if (rates or states) and flat and score:
        also = ", ".join(s.name for s in [*states, *rates])
        return Kind("hear", "vad", f"samples {flat[0].name} {shape(flat[0])} with {also}, one probability comes out")
    return None


def vector(net: Net) -> Kind | None:
    """Numbers in, the same number of them out."""
    if len(net.inputs) != 1 or len(net.inputs[0].shape) not in (2, 3) or not net.inputs[0].shape[-1]:
        return None
    spec = net.inputs[0]
    same = [s for s in net.outputs if s.shape[1:] == spec.shape[1:]]
    codes = [s for s in net.outputs if s not in same and len(s.shape) == 2]
    if same and len(codes) >= 2:
        return Kind(
            "anomaly", "vae", f"{shape(spec)} goes in and comes back with {len(codes)} codes, mean and variance"
        )
    if same and len(net.outputs) == 1:
        return Kind("anomaly", "autoencoder", f"{shape(spec)} goes in and {shape(same[0])} comes back")
    return None
