"""``wake:NAME``: once the word was heard, the sound behind it passes, for the next utterance; nothing else does.

The words are those of pymicro-wakeword (extra [wake]), which is imported here alone. Options: ``seconds`` in which
somebody has to begin to speak (a speech that began is heard to the end, for MOST_S at most), ``score`` from which on
the word is believed (its own where none is given).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.errors import ConfigError, nearest
from edge_agent.tasks.speech.voice import RATE, STEP, Gate, levels
from edge_agent.types import Audio, Floats, Task
from edge_agent.uri import Uri, number

OPTIONS = {"seconds": "8", "score": ""}
HOP = 160
"""samples that the word's network is shown at once, 10 ms"""
MOST_S = 30.0
"""seconds of sound that pass after one word, at most"""
ABOVE = 6.0
"""dB over the noise floor from which on somebody is taken to speak still"""
DISPUTED = (
    "wake: the words' models are Apache-2.0 by their makers; under which terms the recordings may be used that they "
    "were trained on is disputed (docs/speech.md)"
)

log = logging.getLogger("edge_agent")


@dataclass(slots=True)
class Wake:
    """The task. It remembers: samples come to it in order."""

    word: Any
    features: Any
    """pymicro-wakeword's: the network of the word, and what makes its input of sound"""
    score: float
    seconds: float
    takes: tuple[type, ...] = (Audio,)
    gives: type = Audio
    gate: Gate = field(default_factory=lambda: Gate(ABOVE))
    _rest: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    """what is no whole HOP yet"""
    _seen: int = 0
    """samples, up to the end of the sound before"""
    _heard: int = -1
    """sample behind the last word; -1: none, or what follows it is over"""

    def __call__(self, item: Audio) -> Iterator[Audio]:
        """What of it passes; the last that passes after a word says so."""
        first, end = self._seen, self._seen + len(item.samples)
        opened = first if self._heard >= 0 else -1
        for place in self._words(item.samples):
            log.info("wake: %s was heard", self.word.wake_word)
            self._heard = place
            opened = max(first, place) if opened < 0 else opened
        self._seen = end
        loud = self._is_loud(item.samples)
        if opened >= 0:
            over = self._is_over(end, loud) or item.last
            part = item.samples[opened - first :]
            since = (opened - first) / RATE
            if len(part) or over:
                yield Audio(part, item.at + since, item.mono + since, last=over, name=item.name)
            if over:
                self._heard = -1
        if item.last:
            self._forget()

    def _words(self, samples: Floats) -> list[int]:
        """The samples behind which the word was heard."""
        start = self._seen - len(self._rest)
        sound = np.concatenate([self._rest, samples])
        whole = len(sound) // HOP * HOP
        self._rest, found = sound[whole:].copy(), []
        pcm = (np.clip(sound[:whole], -1, 1) * 32767).astype("<i2")
        for at in range(0, whole, HOP):
            for features in self.features.process_streaming(pcm[at : at + HOP].tobytes()):
                if (self.word.process_streaming_prob(features) or 0.0) > self.score:
                    found.append(start + at + HOP)
        return found

    def _is_loud(self, samples: Floats) -> bool:
        """Whether somebody may still speak at the end of this sound."""
        steps = samples[: len(samples) // STEP * STEP].reshape(-1, STEP)
        loud = [self.gate(level) for level in levels(steps).tolist()] if len(steps) else []
        return loud[-1] if loud else True

    def _is_over(self, end: int, loud: bool) -> bool:
        """Whether no more passes after the last word."""
        since = (end - self._heard) / RATE
        return since >= MOST_S or (since >= self.seconds and not loud)

    def _forget(self) -> None:
        """The stream has ended; what comes next is another one."""
        self._rest, self._seen, self._heard = np.zeros(0, np.float32), 0, -1
        self.features.reset()
        self.word.reset()
        self.gate.forget()


def wake(uri: Uri, model: None, home: Path) -> Task:
    """Make the task. ConfigError for its options, an unknown word, and where the package is not installed."""
    try:
        from pymicro_wakeword import MicroWakeWord, MicroWakeWordFeatures, Model
    except ImportError:
        raise ConfigError(f'"{uri}": wake words need `pip install "edge-agent-runtime[wake]"`') from None
    words = {word.value: word for word in Model}
    if uri.rest not in words:
        near = nearest(uri.rest, words, {}) if uri.rest else f"; known are {', '.join(words)}"
        raise ConfigError(f'"{uri}": no wake word "{uri.rest}"{near}')
    seconds, score = number(uri, OPTIONS, "seconds", 1, MOST_S), number(uri, OPTIONS, "score", 0.05, 0.999)
    log.warning("%s", DISPUTED)
    word = MicroWakeWord.from_builtin(words[uri.rest])
    return Wake(word, MicroWakeWordFeatures(), score or word.probability_cutoff, seconds)
