"""How a network that hears speech proves itself, and how two of them are compared."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_agent.errors import RefusedError
from edge_agent.manifest import Served
from edge_agent.samples.sounds import sounds
from edge_agent.tasks.proofs import Recorder
from edge_agent.tasks.speech.voice import CONTEXT, STEP, voice_of
from edge_agent.types import Floats

MOSTLY, HARDLY = 0.6, 0.1
"""share of the steps of a voice that are heard as speech at least, and of what is no voice at most; measured: 0.96 to
1.00 of these voices, 0.00 of the noises"""
LEARN = 16
"""steps at the beginning that are not counted"""


def heard(model: Served, shown: Mapping[str, Floats]) -> dict[str, Floats]:
    """The probability of each step of each sound, from LEARN on."""
    network, found = voice_of(model), {}
    for name, sound in shown.items():
        network.forget()
        padded = np.concatenate([np.zeros(CONTEXT, np.float32), sound])
        windows = np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + STEP)[::STEP]
        found[name] = network(np.ascontiguousarray(windows))[LEARN:]
    return found


def prove(model: Served, seen: Recorder) -> list[str]:
    """Run it on sound. Notes on what it says; RefusedError where that makes no sense."""
    shares = {name: float((p >= model.manifest.score).mean()) for name, p in heard(model, sounds()).items()}
    for name, share in shares.items():
        if "voice" in name and share < MOSTLY:
            raise RefusedError(f"it hears speech in {share:.0%} of {name} that is made of vowels")
        if "voice" not in name and share > HARDLY:
            raise RefusedError(f"it hears speech in {share:.0%} of {name}")
    return ["speech in " + ", ".join(f"{share:.0%} of {name}" for name, share in shares.items())]


def compare(one: Served, other: Served) -> tuple[float, int, str]:
    """Share of the steps in which both hear speech, or both none."""
    shown = sounds()
    mine, theirs = (np.concatenate([*heard(model, shown).values()]) for model in (one, other))
    same = (mine >= one.manifest.score) == (theirs >= other.manifest.score)
    return float(same.mean()), len(same), "share of steps with its parent's answer"
