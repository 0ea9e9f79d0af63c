"""How likely it is that somebody speaks, step by step: Silero VAD, and the level gate that keeps silence from it.

A step is STEP samples; the network also sees the CONTEXT samples before it (as Silero's own runner does from version 5
on), and hands a state from one run to the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.errors import InputError, ManifestError
from edge_agent.manifest import Served
from edge_agent.types import Floats, Net

RATE, STEP, CONTEXT = 16_000, 512, 64
STEP_S = STEP / RATE

PIECE = 64
"""samples whose mean is taken off, 4 ms"""
LEAST_DB = -70.0
"""dB of full scale below which nothing is heard"""
FLOOR_S, PARTS = 3.0, 6
"""seconds of which the quietest step is the noise floor, and parts of it that are forgotten one by one"""
OPEN_S = 1.0
"""seconds that the gate stays open behind the last loud step"""
RUN_UP = 16
"""steps before a loud one that the network is shown first: it needs some to find its feet"""


@dataclass(slots=True)
class Voice:
    """The network as a function of steps that follow each other."""

    net: Net
    sound: str
    states: Mapping[str, str]
    """input -> the output that is its value in the next run"""
    answer: str
    one_by_one: bool
    _state: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def forget(self) -> None:
        """What follows has nothing to do with what came before."""
        self._state = {
            spec.name: np.zeros([axis or 1 for axis in spec.shape], np.float32)
            for spec in self.net.inputs
            if spec.name in self.states
        }

    def __call__(self, steps: Floats) -> Floats:
        """(n, CONTEXT + STEP) -> (n,) probabilities. InputError where the network gives none."""
        if not self._state:
            self.forget()
        size = 1 if self.one_by_one else max(1, len(steps))
        found = [self._run(steps[n : n + size]) for n in range(0, len(steps), size)]
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    def _run(self, steps: Floats) -> Floats:
        out = self.net.run({self.sound: steps, **self._state})
        p: Floats = out[self.answer].reshape(-1)
        if len(p) != len(steps) or not (np.isfinite(p).all() and p.min() >= 0 and p.max() <= 1):
            self.forget()
            raise InputError("the network gave no probabilities for this sound; the result is refused")
        self._state = {name: out[after] for name, after in self.states.items()}
        return p


def voice_of(model: Served) -> Voice:
    """The network of a model. ManifestError where it is none that answers each step and hands on a state."""
    net, name = model.net, model.manifest.name
    sound = [spec for spec in net.inputs if len(spec.shape) == 2 and spec.shape[1] == CONTEXT + STEP]
    states = _states(net)
    answers = [out.name for out in net.outputs if out.name not in states.values()]
    if model.manifest.task != "speech" or model.manifest.family != "silero":
        raise ManifestError(f"{name}: its task is {model.manifest.task}, it does not say where somebody speaks")
    counts = len(sound), len(answers), len(net.inputs) - len(states)
    if counts != (1, 1, 1) or not all(states.values()):
        raise ManifestError(f"{name}: not a network of [steps, {CONTEXT + STEP}] samples and states of its own")
    return Voice(net, sound[0].name, states, answers[0], sound[0].shape[0] == 1)


def _states(net: Net) -> dict[str, str]:
    """Each input that is a state -> the output of its name and an n behind it; empty where there is none."""
    return {
        spec.name: next((out.name for out in net.outputs if out.name.lower() == f"{spec.name.lower()}n"), "")
        for spec in net.inputs
        if len(spec.shape) == 3
    }


class Gate:
    """Which steps are loud enough to be looked at: `above` dB over the noise floor, which is the quietest step of the
    last seconds (after Martin's minimum statistics, 2001); all of them where `above` is 0.
    """

    def __init__(self, above: float) -> None:
        self._above = above
        self.forget()

    def forget(self) -> None:
        """Another place or stream: its floor is not known."""
        self._quietest: deque[float] = deque(maxlen=PARTS)
        self._part, self._steps, self._open = float("inf"), 0, round(OPEN_S / STEP_S)

    def __call__(self, level: float) -> bool:
        """Whether the gate is open for a step of this level, dB of full scale."""
        self._part = min(self._part, level)
        self._steps += 1
        if self._steps >= FLOOR_S / PARTS / STEP_S:
            self._quietest.append(self._part)
            self._part, self._steps = float("inf"), 0
        floor = max(min([self._part, *self._quietest]), LEAST_DB - self._above)
        if not self._above or level > floor + self._above:
            self._open = round(OPEN_S / STEP_S)
        else:
            self._open -= 1
        return self._open > 0


def levels(steps: Floats) -> npt.NDArray[np.float64]:
    """(n, STEP) -> dB of full scale of each, without what is below about 125 Hz: rumble and hum go up and down by many
    dB from step to step, and no speech is lost with them.
    """
    short = steps.reshape(-1, STEP // PIECE, PIECE).astype(np.float64)
    power = np.square(short - short.mean(2, keepdims=True)).mean((1, 2))
    found: npt.NDArray[np.float64] = 10 * np.log10(np.maximum(power, 1e-12))
    return found
