"""The engine `whisper`: a segment of sound -> its words, or nothing where it hears none.

Whisper was trained on windows of 30 s and always says something. So what it says is held against three figures: the
probability that there is no speech, the mean log probability of its tokens, and how well the text can be packed, as
it says the same over and over where it is lost (the figures of Radford et al. 2022, section 4.5). A shorter window
costs less, and is done again with the whole one where the answer looks like that.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import msgspec
import numpy as np

from edge_agent.errors import ConfigError, InputError, ManifestError
from edge_agent.manifest import Served
from edge_agent.tasks.transcribe.mel import HOP, RATE, log_mel
from edge_agent.tasks.transcribe.said import Engine, Said
from edge_agent.tasks.transcribe.vocabulary import QUIET, START, Vocabulary, read
from edge_agent.types import Floats
from edge_agent.uri import Uri, choice, switch, whole

OPTIONS = {"language": "en", "beam": "5", "words": "no"}
MOST_BEAM = 16
WHOLE, SHORT, BEHIND = 3000, 1000, 200
"""frames (of 10 ms) of the window that it was trained on, of the shortest that is given to it, and of silence that
stands behind the speech in a shorter one than the whole"""
SILENT, QUIET_SO, UNSURE = 0.8, 0.6, -1.0
"""probability of no speech from which on nobody speaks; the same, where what is said has less than this mean log
probability: of 77 sounds without speech the least had 0.82 and the surest -1.09, of 210 sentences, some with as much
noise as speech, none more than 0.78"""
PACKED = 2.4
"""times that a text can be packed from which on it repeats itself"""
TOKENS_A_SECOND, FEWEST = 10, 20
"""most tokens that a second of speech may have, and what any segment may have"""
PLACE = 0.02
"""seconds of a place in what is encoded"""
MULTILINGUAL = 51865
"""tokens of a Whisper of many languages; one of English has one less"""


@dataclass(slots=True)
class Whisper:
    """The engine; one thread at a time."""

    model: Served
    words: Vocabulary
    beam: int
    timed: bool
    """say when each word is said"""

    def __call__(self, samples: Floats) -> Said | None:
        """What is said in up to 30 s at 16 kHz; None for nothing. InputError for what is longer, or not made out."""
        frames = math.ceil(len(samples) / HOP)
        if frames > WHOLE:
            raise InputError(
                f"{self.model.ref.name}: {len(samples) / RATE:.1f} s of sound; it takes up to 30 s at once"
            )
        short = max(SHORT, frames + BEHIND)
        said = self._say(samples, min(short + short % 2, WHOLE))
        if short < WHOLE and not said.silent and (said.repeats or said.score < UNSURE):
            said = self._say(samples, WHOLE)
        if said.nothing:
            return None
        if said.repeats and not said.ended:
            long = f"{len(samples) / RATE:.1f} s of sound"
            raise InputError(f"{self.model.ref.name}: says the same over and over of {long}, so nothing is told of it")
        times = self._times(said, frames) if self.timed else msgspec.UNSET
        return Said(said.text, math.exp(min(0.0, said.score)), "en", times)

    def _say(self, samples: Floats, frames: int) -> _Answer:
        run = self.model.net.run
        encoded = run({"features": log_mel(samples, frames)[None]})["encoded"]
        longest = min(FEWEST + TOKENS_A_SECOND * len(samples) // RATE, 224)
        prompt = [self.words.ids[START], self.words.ids[QUIET]]
        found = run(
            {
                "encoded": encoded,
                "prompt": np.array(prompt, np.int32),
                "beam": np.array([self.beam], np.int32),
                "longest": np.array([longest], np.int32),
            }
        )
        tokens = [one for one in found["tokens"].tolist() if one < self.words.end]
        score, silence = float(found["score"][0]), float(found["silence"][0])
        ended = len(found["tokens"]) < longest
        return _Answer(self.words.line(tokens), score, silence, ended, tokens, encoded)

    def _times(self, said: _Answer, frames: int) -> tuple[tuple[float, float], ...] | msgspec.UnsetType:
        """When each word is said; unset where the tokens are no words that are parted by spaces."""
        begins = self.model.net.run(
            {
                "encoded": said.encoded,
                "tokens": np.array(said.tokens, np.int32),
                "start": np.array([self.words.ids[START]], np.int32),
                "frames": np.array([frames], np.int32),
            }
        )["begins"]
        at = np.minimum(begins * PLACE, frames * HOP / RATE).round(2).tolist()
        places = self.words.words(said.tokens)
        if len(places) != len(said.text.split()):
            return msgspec.UNSET
        return tuple((at[each.start], at[each.stop]) for each in places)


@dataclass(frozen=True, slots=True)
class _Answer:
    text: str
    score: float
    """mean log probability of a token"""
    silence: float
    """probability that there is no speech"""
    ended: bool
    """it came to an end by itself"""
    tokens: list[int]
    encoded: Floats

    @property
    def repeats(self) -> bool:
        """Whether it says the same over and over."""
        raw = self.text.encode()
        return len(raw) > PACKED * len(zlib.compress(raw))

    @property
    def silent(self) -> bool:
        """Whether nobody speaks."""
        return self.silence > SILENT or (self.silence > QUIET_SO and self.score < UNSURE)

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to be told of it."""
        return self.silent or not any(map(str.isalnum, self.text))


def whisper(uri: Uri, model: Served) -> Engine:
    """Make the engine. ConfigError for its options, ManifestError for a vocabulary that is none of Whisper's."""
    name = model.ref.name
    with model.part("vocab") as path:
        try:
            words = read(path)
        except ManifestError as error:
            raise ManifestError(f"{name}: {error}") from None
    if len(words.tokens) >= MULTILINGUAL:
        raise ManifestError(f"{name}: a Whisper of many languages, which was never tried here; take one of English")
    if uri.options.get("language", "en") in words.languages[1:]:
        raise ConfigError(f'"{uri}": {name} was trained on English alone; leave language out')
    choice(uri, OPTIONS, "language", ("en",))
    return Whisper(model, words, whole(uri, OPTIONS, "beam", 1, MOST_BEAM), switch(uri, OPTIONS, "words"))
