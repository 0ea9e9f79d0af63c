"""How a model that transcribes proves itself."""

from __future__ import annotations

import numpy as np

from edge_agent.errors import EdgeAgentError, RefusedError
from edge_agent.figures.words import errors, plain
from edge_agent.manifest import Served
from edge_agent.paths import home
from edge_agent.samples.carried import SPOKEN, sound
from edge_agent.tasks import make_task
from edge_agent.tasks.proofs import Recorder
from edge_agent.types import Audio, Task, Text
from edge_agent.uri import Uri

MOST_WRONG = 1 / 3
"""of the words of the carried sentences; whisper-tiny has none wrong"""


def prove(model: Served, seen: Recorder) -> list[str]:
    """Have it hear the carried sentences, and what is no speech. Notes; RefusedError where that makes no sense."""
    task = transcriber(model)
    heard = {name: words(task, sound(name)) for name in SPOKEN}
    wrong = sum(errors(plain(said), plain(heard[name])) for name, said in SPOKEN.items())
    of = sum(len(plain(said)) for said in SPOKEN.values())
    if wrong > MOST_WRONG * of:
        name, said = next((name, said) for name, said in SPOKEN.items() if plain(said) != plain(heard[name]))
        raise RefusedError(f'it hears "{heard[name][:60]}" in {name}, where "{said}" is said')
    for what, samples in _nothing().items():
        if said := words(task, Audio(samples, 0.0, 0.0)):
            raise RefusedError(f'it hears "{said[:60]}" in {what}')
    return [f"{of - wrong} of {of} words of {len(SPOKEN)} sentences heard, none in silence and noise"]


def _nothing() -> dict[str, np.typing.NDArray[np.float32]]:
    """Sounds in which nobody speaks."""
    noise = np.random.default_rng(0).normal(0, 0.02, 32_000).astype(np.float32)
    return {"silence": np.zeros(32_000, np.float32), "noise": noise}


def transcriber(model: Served) -> Task:
    """The task on this model."""
    return make_task(Uri("transcribe", model.ref.name), lambda _: model, home())


def words(task: Task, item: Audio) -> str:
    """What it hears. RefusedError where it fails."""
    try:
        return " ".join(found.text for found in task(item) if isinstance(found, Text))
    except EdgeAgentError as error:
        raise RefusedError(f"on a carried sentence: {error}") from None
