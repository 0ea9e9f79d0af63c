"""The encoder that reads events for their meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge_agent.archive.meaning import Meaning
from edge_agent.errors import InputError
from edge_agent.tasks.text.encoder import Encoder, encoder
from edge_agent.types import Floats

if TYPE_CHECKING:
    from edge_agent.serving.models import Models

LONGEST = 500
"""characters of a text that are read"""


def meaning_of(models: Models, name: str = "encoder") -> Meaning:
    """What reads texts by an encoder. Raises ModelError."""
    served = models.serve(name)
    made = encoder(served)
    return Meaning(lambda texts: _vectors(made, texts), served.manifest.original().sha256)


def _vectors(made: Encoder, texts: Sequence[str]) -> Floats:
    """(n, d); nothing but zeros for a text in which there is nothing to read."""
    short = [text[:LONGEST] for text in texts]
    readable = [n for n, text in enumerate(short) if _can_read(made, text)]
    if not readable:
        return np.zeros((len(texts), 1), np.float32)
    found = made.embed_many([short[n] for n in readable])
    vectors: Floats = np.zeros((len(texts), found.shape[1]), np.float32)
    vectors[readable] = found
    return vectors


def _can_read(made: Encoder, text: str) -> bool:
    try:
        return bool(made.read(text))
    except InputError:
        return False
