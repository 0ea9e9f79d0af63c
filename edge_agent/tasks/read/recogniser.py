"""A line of text as an upright picture -> its characters (CTC, as PaddleOCR trains it)."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import numpy as np

from edge_agent.errors import InputError, ManifestError
from edge_agent.manifest import Input, Served
from edge_agent.types import Net, Pixels

CHARACTERS = "character"
"""under what an ONNX file of PaddleOCR says its characters, one a line, in the order of its classes"""


@dataclass(slots=True)
class Recogniser:
    """The network as a function from a line to what is written there."""

    net: Net
    input: Input
    characters: list[str]
    """of each class: the first means nothing, the last is a space"""

    def __call__(self, line: Pixels) -> tuple[str, float]:
        """What a line (height of the input, any width, 3) says, and how sure that is: the mean of its characters.

        Of each step the likeliest class, once of those that repeat, without what means nothing (Graves 2006).
        InputError for numbers that are none. One line at a time: a batch is padded to its longest, which costs more
        than it saves on a few cores.
        """
        std, mean = np.array(self.input.std, np.float32), np.array(self.input.mean, np.float32)
        tensor = ((line * np.float32(self.input.scale) - mean) / std).transpose(2, 0, 1)[None]
        (told,) = self.net.run({self.net.inputs[0].name: np.ascontiguousarray(tensor, np.float32)}).values()
        told = told.reshape(-1, told.shape[-1])
        if told.shape[1] != len(self.characters) or not np.isfinite(told).all():
            raise InputError("the network that reads lines gave numbers that are no scores; the result is refused")
        best = told.argmax(axis=1)
        said = np.flatnonzero((best > 0) & (best != np.concatenate([[0], best[:-1]])))
        if not len(said):
            return "", 0.0
        text = unicodedata.normalize("NFC", "".join(self.characters[i] for i in best[said].tolist())).strip()
        return text, float(np.clip(told[said, best[said]], 0, 1).mean())


def recogniser(model: Served) -> Recogniser:
    """The network that serves as a Recogniser. ManifestError for one that names no characters, or not as many."""
    name, spec = model.manifest.name, model.input
    given = model.net.about.get(CHARACTERS, "")
    if spec is None or not given:
        raise ManifestError(f'{name}: no characters under "{CHARACTERS}" in its file; export it as PaddleOCR does')
    # what cannot be printed is no line of text
    characters = ["", *(c if c.isprintable() else "\ufffd" for c in given.removesuffix("\n").split("\n")), " "]
    classes = model.net.outputs[0].shape[-1]
    if classes not in (None, len(characters)):
        raise ManifestError(f"{name}: {classes} classes, but {len(characters)} characters, blank and space among them")
    return Recogniser(model.net, spec, characters)
