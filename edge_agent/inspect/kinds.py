"""What a network is that is no detector: by what goes in, what comes out, and the table its tokens are looked up in."""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.families.guess import Guess, shape
from edge_agent.graphs.graph import FileGraph, behind, embedding
from edge_agent.types import Net, TensorSpec

TEXT = ("ids", "mask", "segment", "token", "type")
"""words in the names of a text model's inputs"""
VOCABULARY = 5000
"""a last axis beyond this counts words, where no table of the graph says how many there are"""
MOST_TAGS = 64
"""a last axis below this counts tags, where there is no such table"""
RATES = ("sr", "sample_rate")
STATES = ("state", "h", "c", "h0", "c0", "hn", "cn")
"""names of inputs of a network that hears"""
LINE_HEIGHTS = (32, 48, 64)
"""pixels of a line of text, as OCR recognisers take them"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A task, the family of its head, and why."""

    task: str
    family: str
    why: str
    classes: int = 0


def of_guess(guess: Guess) -> Kind:
    """A detector's head that is not served."""
    return Kind("detect", guess.family, guess.why, guess.classes)


def axes(spec: TensorSpec) -> tuple[int | None, ...]:
    """The shape without axes of 1 behind the first."""
    return (*spec.shape[:1], *(axis for axis in spec.shape[1:] if axis != 1))


def is_text(net: Net, graph: FileGraph) -> bool:
    """Whether token ids go in: integers [B, L] by name, or looked up in a table."""
    return any(_takes_ids(spec, graph) for spec in net.inputs if len(spec.shape) == 2)


def _takes_ids(spec: TensorSpec, graph: FileGraph) -> bool:
    name = spec.name.lower()
    if "ids" in name:
        return True
    integers = spec.dtype in ("int32", "int64")
    return integers and (any(word in name for word in TEXT) or embedding(graph, spec.name) is not None)


def text(net: Net, graph: FileGraph) -> Kind | None:
    """Encoder, masked words, next sentence, tags, answers or classes, from the shapes of what comes out."""
    table = next((t for s in net.inputs if (t := embedding(graph, s.name))), None)
    return _answers(net) or _per_token(net, graph, table) or _vectors(net) or _per_text(net, table)


Table = tuple[int, int] | None
"""(words, width) of the table in which token ids are looked up"""


def _where(table: Table) -> str:
    return f"the table of {table[0]} words by {table[1]}" if table else "no table of words was found"


def _flat(net: Net) -> list[TensorSpec]:
    return [spec for spec in net.outputs if len(spec.shape) == 2]


def _answers(net: Net) -> Kind | None:
    """Where an answer starts and ends: two scores a token."""
    pair = _flat(net)
    if len(pair) != 2:
        return None
    if all("start" in s.name.lower() or "end" in s.name.lower() for s in pair):
        return Kind("answer", "bert-qa", f"outputs {' and '.join(s.name for s in pair)}: one score a token each")
    if len(net.outputs) == 2 and all(s.shape[1] in (None, net.inputs[0].shape[1]) for s in pair):
        return Kind("answer", "bert-qa", f"two outputs of one score a token: {shape(pair[0])}, {shape(pair[1])}")
    return None


def _per_token(net: Net, graph: FileGraph, table: Table) -> Kind | None:
    """What comes out for each token: scores of words, start and end, tags, or a vector."""
    specs = [spec for spec in net.outputs if len(spec.shape) == 3]
    if not specs or any("embedding" in spec.name.split(":")[0].lower() for spec in net.outputs):
        return None
    seen = f"output {specs[0].name} {shape(specs[0])}"
    encoder = Kind("encode", "bert", f"{seen} has one vector a token ({_where(table)})")
    return _scores(specs[0], graph, table) or encoder


def _scores(spec: TensorSpec, graph: FileGraph, table: Table) -> Kind | None:
    """Scores for each token, of words, start and end, or tags; None for a vector."""
    where = _where(table)
    width, seen = spec.shape[2] or 0, f"output {spec.name} {shape(spec)}"
    if width and _is_vocabulary(width, table):
        return Kind("fill", "bert-mlm", f"{seen} has one score a word of the vocabulary ({where})", width)
    if width and not _is_hidden(spec, graph, table):
        if width == 2:
            return Kind("answer", "bert-qa", f"{seen}: start and end scores for each token ({where})")
        if table or width < MOST_TAGS:
            return Kind("tag", "bert-tagger", f"{seen}: {width} tags for each token ({where})", width)
    return None


def _is_vocabulary(width: int, table: Table) -> bool:
    """Whether so many numbers are one for each word."""
    return width == table[0] if table else width > VOCABULARY


def _is_hidden(spec: TensorSpec, graph: FileGraph, table: Table) -> bool:
    """Whether an output is the hidden states: by its name, its width, or what gives it."""
    named = "hidden" in spec.name.lower()
    return named or (table is not None and spec.shape[2] == table[1]) or _norm(graph, spec.name)


def _vectors(net: Net) -> Kind | None:
    """One vector a text, by the name of the output, or beside one a token."""
    named = [s for s in _flat(net) if any(word in s.name.lower() for word in ("embedding", "pool", "vector"))]
    found = named or [spec for spec in net.outputs if len(spec.shape) == 3]
    return Kind("encode", "bert", f"output {found[0].name} is one vector a text") if found else None


def _per_text(net: Net, table: Table) -> Kind | None:
    """One row of numbers a text: a vector, or scores of classes."""
    flat = _flat(net)
    if len(flat) != 1:
        return None
    (spec,), where = flat, _where(table)
    n, seen = spec.shape[1] or 0, f"output {spec.name} {shape(spec)}"
    if n == 2 and _follows(spec.name.lower()):
        return Kind("follows", "bert-nsp", f"{seen}: whether one sentence follows the other ({where})", 2)
    if n and table and n == table[1]:
        return Kind("encode", "bert", f"{seen} is one vector a text, as wide as {where}")
    extra = ", or next sentence: the names do not say" if n == 2 else ""
    return Kind("classify", "bert-classifier", f"{seen}: {n or 'some'} classes for each text{extra} ({where})", n)


def _follows(name: str) -> bool:
    """Whether an output's name says that it tells whether one sentence follows the other."""
    return any(word in name for word in ("seq_rel", "nsp", "next"))


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
        return Kind("fill", "bert-mlm", f"{seen}: one score a word, the head of an encoder beside it", width)
    if len(spec.shape) == 3:
        return Kind(
            "tag", "bert-tagger", f"{seen}: {width} tags for each token, the head of an encoder beside it", width
        )
    if len(spec.shape) == 2 and width == 2:
        return Kind("follows", "bert-nsp", f"{seen}: two scores a text, the head of an encoder beside it", 2)
    return None


def two_inputs(net: Net) -> Kind | None:
    """A picture goes in together with something else."""
    pictures = [spec for spec in net.inputs if len(spec.shape) == 4]
    if len(pictures) != 1:
        return None
    extra = ", ".join(f"{s.name} {shape(s)}" for s in net.inputs if s not in pictures)
    return Kind("detect", "two-inputs", f"a picture {shape(pictures[0])} goes in together with {extra}")


def picture(net: Net, order: str) -> Kind | None:
    """What is made of one picture, when it is no detector's head. `order`: layout, "" for a picture of one colour."""
    shaped = net.inputs[0].shape
    height, width = shaped[1:3] if order == "NHWC" else shaped[2:]
    if (found := _picture_again(net)) or len(net.outputs) != 1:
        return found
    out = net.outputs[0]
    return _line(out, height, width) or _numbers(out) or _maps(out, (height, width))


def _picture_again(net: Net) -> Kind | None:
    """A picture comes back."""
    same, codes = _come_back(net)
    if same and len(codes) >= 2:
        what = f"a picture {shape(same[0])} comes back with {len(codes)} codes, mean and variance"
        return Kind("anomaly", "vae", what)
    if same and None not in net.inputs[0].shape[1:]:
        return Kind("anomaly", "autoencoder", f"a picture of the same shape {shape(same[0])} comes back")
    return None


def _come_back(net: Net) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Outputs that are shaped as the input, and those of one vector beside them."""
    same = [spec for spec in net.outputs if spec.shape[1:] == net.inputs[0].shape[1:]]
    return same, [spec for spec in _flat(net) if spec not in same]


def _line(out: TensorSpec, height: int | None, width: int | None) -> Kind | None:
    """A line of text goes in, and scores of characters come out, one row a step."""
    if len(out.shape) != 3 or height not in LINE_HEIGHTS or (width is not None and width < 2 * height):
        return None
    n = out.shape[2] or 0
    seen = f"output {out.name} {shape(out)}: {n} characters a step"
    return Kind("read", "ocr-recogniser", f"a line {height} pixels high goes in, {seen}", n)


def _numbers(out: TensorSpec) -> Kind | None:
    """One row of numbers for each picture."""
    rest = (*axes(out), 1)
    if len(out.shape) not in (2, 4) or len(rest) not in (2, 3) or not rest[1]:
        return None
    many = f"{rest[1]} numbers" if rest[1] > 1 else "one number"
    return Kind("recognise", "image-classifier", f"output {out.name} {shape(out)}: {many} for each picture", rest[1])


def _maps(out: TensorSpec, size: tuple[int | None, ...]) -> Kind | None:
    """Numbers for each pixel or cell of a picture of `size`; None where its sides are of no such map."""
    if len(out.shape) != 4:
        return None
    seen = f"output {out.name} {shape(out)}"
    for channels, sides in ((out.shape[1], out.shape[2:]), (out.shape[3], out.shape[1:3])):
        if channels == 1 and (sides == size or None in sides):
            what = "as of where text is, of what stands before the rest, or of how far it is"
            return Kind("segment", "pixel-map", f"{seen}: one number for each pixel of the picture, {what}")
        if channels and sides == size:
            return Kind("segment", "segmentation", f"{seen}: {channels} numbers for each pixel, as of classes")
        if channels and _are_cells(sides, size):
            what = "as of classes or of the points of a body"
            return Kind("segment", "cell-maps", f"{seen}: maps of {channels} numbers for each cell, {what}")
    return None


def _are_cells(sides: tuple[int | None, ...], size: tuple[int | None, ...]) -> bool:
    """Whether a map is as wide to its height as the picture, and no smaller than a 64th of it."""
    (high, wide), (height, width) = ([side or 0 for side in both] for both in (sides, size))
    return high * 64 >= height and abs(high * width - wide * height) <= height + width


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
    also = [*filter(_is_state, net.inputs), *(spec for spec in net.inputs if spec.name.lower() in RATES)]
    samples = next(filter(_is_samples, net.inputs), None)
    if not also or samples is None or not any(map(_is_one_number, net.outputs)):
        return None
    beside = ", ".join(spec.name for spec in also)
    return Kind("hear", "vad", f"samples {samples.name} {shape(samples)} with {beside}, one probability comes out")


def _is_state(spec: TensorSpec) -> bool:
    return len(spec.shape) == 3 and spec.name.lower() in STATES


def _is_samples(spec: TensorSpec) -> bool:
    return len(spec.shape) == 2 and spec.dtype.startswith("float")


def _is_one_number(spec: TensorSpec) -> bool:
    return axes(spec)[1:] in ((), (None,)) and spec.dtype.startswith("float")


def vector(net: Net) -> Kind | None:
    """Numbers in, the same number of them out."""
    if len(net.inputs) != 1 or len(net.inputs[0].shape) not in (2, 3) or not net.inputs[0].shape[-1]:
        return None
    given, (same, codes) = shape(net.inputs[0]), _come_back(net)
    if same and len(codes) >= 2:
        return Kind("anomaly", "vae", f"{given} goes in and comes back with {len(codes)} codes, mean and variance")
    if same and len(net.outputs) == 1:
        return Kind("anomaly", "autoencoder", f"{given} goes in and {shape(same[0])} comes back")
    return None
