"""``speech:MODEL``: sound -> utterances, each an Audio of 30 s at most, to be transcribed by the task behind it.

A level gate keeps silence from the network; its probabilities make utterances with hysteresis; what is too long is cut
at its quietest place. Options, all in seconds but the first two: OPTIONS.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_agent.errors import ConfigError
from edge_agent.manifest import Served
from edge_agent.tasks.speech.voice import CONTEXT, RATE, RUN_UP, STEP, STEP_S, Gate, Voice, levels, voice_of
from edge_agent.types import Audio, Floats, Task
from edge_agent.uri import Uri, number

OPTIONS = {
    "score": "",
    "gate": "6",
    "before": "0.3",
    "after": "0.3",
    "pause": "0.6",
    "least": "0.25",
    "longest": "30",
}
"""probability from which on somebody speaks (the manifest's); dB above the noise floor from which on the network is
asked (off: always); sound before and behind the speech that goes with it; silence that ends an utterance; speech that
an utterance has at least, and its length at most"""
BOUNDS = {
    "score": (0.05, 0.95),
    "gate": (0.5, 30.0),
    "before": (0.0, 2.0),
    "after": (0.0, 2.0),
    "pause": (0.1, 5.0),
    "least": (0.03, 5.0),
    "longest": (2.0, 30.0),
}
HYSTERESIS = 0.15
"""how far below `score` a step may fall while somebody speaks"""
LOOK_S, QUIET = 8.0, 5
"""seconds of what is too long in whose quietest place it is cut; steps of such a place"""

log = logging.getLogger("edge_agent")


class _Step:
    """STEP samples (fewer at the end of a stream), and how loud they are."""

    __slots__ = ("level", "sound")

    def __init__(self, sound: Floats, level: float) -> None:
        self.sound, self.level = sound, level


@dataclass(slots=True)
class Speech:
    """The task. It remembers: samples come to it in order."""

    voice: Voice
    gate: Gate
    score: float
    steps: dict[str, int]
    """before, after, pause, least, longest, in steps"""
    takes: tuple[type, ...] = (Audio,)
    gives: type = Audio
    under_way: bool = False
    """somebody speaks, and it has not come out yet"""
    _rest: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    """what is no whole step yet"""
    _held: list[_Step] = field(default_factory=list)
    """the utterance so far with what stands before it, or what may come to stand before one"""
    _open: bool = True
    _context: Floats = field(default_factory=lambda: np.zeros(CONTEXT, np.float32))
    """the last samples that the network was shown"""
    _voiced: int = 0
    """steps of speech in the utterance"""
    _end: int = 0
    """of _held: behind the last step of speech"""
    _seen: int = 0
    """samples since the stream began"""
    _asked: int = 0
    """steps that the network was asked about"""
    _told: int = 0
    """utterances of this stream"""

    def take_over(self, other: Task) -> None:
        """Go on with what another such task, on the network before this one, has heard."""
        if isinstance(other, Speech):
            for name in ("under_way", "gate", "_rest", "_held", "_voiced", "_end", "_seen", "_asked", "_told"):
                setattr(self, name, getattr(other, name))
            # the state of another network means nothing: it is shown the last steps again
            self._open = False

    def __call__(self, item: Audio) -> Iterator[Audio]:
        """The utterances that this sound completes."""
        sound = np.concatenate([self._rest, item.samples])
        whole = len(sound) // STEP * STEP
        steps, self._rest = sound[:whole].reshape(-1, STEP), sound[whole:].copy()
        self._seen += len(item.samples)
        new = [_Step(*each) for each in zip(steps, levels(steps).tolist(), strict=True)] if whole else []
        for left, (step, p) in zip(range(len(new) - 1, -1, -1), self._asked_about(new), strict=True):
            if said := self._hear(step, p):
                yield self._utterance(said, item, left * STEP + len(self._rest))
        if item.last:
            if self.under_way:
                self._held.append(_Step(self._rest, 0.0))
                if said := self._close():
                    yield self._utterance(said, item, 0)
            self._forget()

    def _asked_about(self, new: list[_Step]) -> list[tuple[_Step, float]]:
        """Each of these steps, and how likely somebody speaks in it; 0 where the gate is shut."""
        every, first = [*self._held, *new], len(self._held)
        found = [0.0] * len(every)
        for start, end, anew in self._runs(new, first):
            if start == end:
                continue
            context = self._context
            if anew:
                self.voice.forget()
                context = every[start - 1].sound[-CONTEXT:] if start else np.zeros(CONTEXT, np.float32)
            sound = np.concatenate([context, *(step.sound for step in every[start:end])])
            windows = np.lib.stride_tricks.sliding_window_view(sound, CONTEXT + STEP)[::STEP]
            found[start:end] = self.voice(np.ascontiguousarray(windows)).tolist()
            self._asked += end - start
        self._context = new[-1].sound[-CONTEXT:] if new else self._context
        return list(zip(new, found[first:], strict=True))

    def _runs(self, new: list[_Step], first: int) -> list[list[int]]:
        """From where to where the network is asked, counted so that the first new step is `first`; 1: anew, as it has
        not been asked what comes before.
        """
        runs = [[first, first, 0]] if self._open else []
        for n, step in enumerate(new, first):
            was, self._open = self._open, self.gate(step.level) or self.under_way
            if self._open and not was:
                runs.append([max(0, n - RUN_UP), n, 1])
            if self._open:
                runs[-1][1] = n + 1
        return runs

    def _hear(self, step: _Step, p: float) -> list[_Step]:
        """The utterance that this step completes, or nothing."""
        self._held.append(step)
        if not self.under_way:
            if p < self.score:
                del self._held[: -max(RUN_UP, self.steps["before"])]
                return []
            del self._held[: -self.steps["before"] - 1]
            self.under_way, self._voiced, self._end = True, 0, 0
        if p >= self.score - HYSTERESIS:
            self._voiced, self._end = self._voiced + 1, len(self._held)
        if len(self._held) - self._end >= self.steps["pause"]:
            return self._close()
        return self._cut() if len(self._held) >= self.steps["longest"] else []

    def _close(self) -> list[_Step]:
        """The utterance has ended; nothing, where too little of it was speech."""
        self.under_way = False
        if self._voiced < self.steps["least"]:
            return []
        end = self._end + self.steps["after"]
        said, self._held = self._held[:end], self._held[end:]
        return said

    def _cut(self) -> list[_Step]:
        """What is too long, up to its quietest place."""
        look = min(round(LOOK_S / STEP_S), len(self._held) // 2)
        loud = np.convolve([step.level for step in self._held[-look:]], np.ones(QUIET) / QUIET, "valid")
        cut = len(self._held) - look + int(loud.argmin()) + QUIET // 2
        said, self._held = self._held[:cut], self._held[cut:]
        self._voiced, self._end = max(self.steps["least"], self._end - cut), max(0, self._end - cut)
        return said

    def _utterance(self, said: list[_Step], item: Audio, left: int) -> Audio:
        """These steps as an Audio; `left` samples of `item` stand behind what is held."""
        sound = np.concatenate([step.sound for step in said])
        ago = len(sound) + sum(len(step.sound) for step in self._held) + left
        since = (len(item.samples) - ago) / RATE
        self._told += 1
        name = f"{item.name}#{(self._seen - ago) / RATE:.2f}" if item.name else ""
        return Audio(sound, item.at + since, item.mono + since, name=name)

    def _forget(self) -> None:
        """The stream has ended; what comes next is another one."""
        if steps := self._seen // STEP:
            told = f"{self._told} utterances in {self._seen / RATE:.0f} s of sound"
            log.debug("%s; the network was asked about %.0f %% of it", told, 100 * self._asked / steps)
        self._rest, self._context, self._held = np.zeros(0, np.float32), np.zeros(CONTEXT, np.float32), []
        self.under_way, self._open = False, True
        self._voiced = self._end = self._seen = self._asked = self._told = 0
        self.voice.forget()
        self.gate.forget()


def speech(uri: Uri, model: Served, home: Path) -> Task:
    """Make the task. ConfigError for its options, ManifestError for a model of another kind."""
    values = {key: number(uri, OPTIONS, key, *bounds) for key, bounds in BOUNDS.items()}
    if values["after"] > values["pause"]:
        raise ConfigError(f'"{uri}": after={values["after"]:g} is more than pause={values["pause"]:g}; make it less')
    steps = {key: round(values[key] / STEP_S) for key in ("before", "after", "pause", "least")}
    # 30 s are the most that the tasks behind it take
    steps["longest"] = math.floor(values["longest"] / STEP_S)
    return Speech(voice_of(model), Gate(values["gate"]), values["score"] or model.manifest.score, steps)
