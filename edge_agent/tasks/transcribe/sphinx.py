"""The engine `pocketsphinx`: small words for small boards. It brings its own model of English, so none is named.

``transcribe:pocketsphinx?grammar=FILE`` hears only what a JSGF grammar allows, ``?keywords=FILE`` spots phrases (one a
line with its threshold, ``turn on /1e-20/``), and without either it takes dictation, badly. The only file that imports
pocketsphinx.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pocketsphinx

from edge_agent.errors import ConfigError
from edge_agent.files import read_regular
from edge_agent.manifest import Served
from edge_agent.tasks.transcribe.said import Engine, Said
from edge_agent.types import Floats
from edge_agent.uri import Uri, option

OPTIONS = {"grammar": "", "keywords": ""}
SEARCH = "edge-agent"
MOST_BYTES = 1_000_000
"""of a grammar, or a list of keywords"""
NO_WORDS = (
    r"/\*.*?\*/|//[^\n]*",
    r"^\s*#JSGF[^;]*;|\bgrammar\s+[\w.]+\s*;|\bimport\s*<[^>]*>\s*;",
    r"\bpublic\b(?=\s*<)",
    r"<[^>]*>|\{[^}]*\}|/[\d.eE+-]+/",
)
"""parts of a JSGF grammar (JSpeech Grammar Format, W3C note of 2000) that are not spoken"""
MARKS = re.compile(r"[\s()\[\]|*+;=\"]+")


@dataclass(slots=True)
class Sphinx:
    """The engine; one thread at a time."""

    decoder: Any
    spots: bool
    """it looks for keywords"""

    def __call__(self, samples: Floats) -> Said | None:
        """What is said; None for nothing that its grammar or keywords hold."""
        pcm = np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2")
        if not len(pcm):
            return None
        self.decoder.start_utt()
        self.decoder.process_raw(pcm.tobytes(), full_utt=True)
        self.decoder.end_utt()
        found = self.decoder.hyp()
        if found is None or not found.hypstr.strip():
            return None
        if not self.spots:
            return Said(" ".join(found.hypstr.split()), min(1.0, float(found.best_score)), "en")
        spotted = sorted(self.decoder.seg(), key=lambda one: one.start_frame)
        text = " ".join(" ".join(one.word for one in spotted).split())
        return Said(text, min(1.0, *(float(one.prob) for one in spotted)), "en")


def sphinx(uri: Uri, model: Served | None) -> Engine:
    """Make the engine. ConfigError for a file that cannot be read, is none of its kind, or names unknown words."""
    grammar, keywords = option(uri, OPTIONS, "grammar"), option(uri, OPTIONS, "keywords")
    if grammar and keywords:
        raise ConfigError(f'"{uri}": a grammar and keywords; give one of them')
    plain: dict[str, Any] = {"lm": None} if grammar or keywords else {}
    decoder = pocketsphinx.Decoder(samprate=16000, loglevel="FATAL", **plain)
    if grammar:
        _hear_grammar(uri, grammar, decoder)
    if keywords:
        _spot_keywords(uri, keywords, decoder)
    return Sphinx(decoder, bool(keywords))


def _hear_grammar(uri: Uri, path: str, decoder: Any) -> None:
    text = _read(uri, path)
    if not text.lstrip().startswith("#JSGF"):
        raise ConfigError(f'"{uri}": {path} is no JSGF grammar; its first line is #JSGF V1.0;')
    _refuse_unknown(uri, path, words_of(text), decoder)
    _search(uri, path, decoder, "add_jsgf_string", text, "no JSGF grammar with a public rule")


def _spot_keywords(uri: Uri, path: str, decoder: Any) -> None:
    lines = [line.strip() for line in _read(uri, path).splitlines() if line.strip()]
    phrases = [re.sub(r"/[^/]*/$", "", line).strip() for line in lines]
    _refuse_unknown(uri, path, [word for phrase in phrases for word in phrase.split()], decoder)
    _search(uri, path, decoder, "add_kws", path, "no list of phrases, each with /1e-20/ behind it")


def words_of(grammar: str) -> list[str]:
    """The words that a JSGF grammar holds, in its order."""
    for pattern in NO_WORDS:
        grammar = re.sub(pattern, " ", grammar, flags=re.DOTALL | re.MULTILINE)
    return [word for word in MARKS.split(grammar) if word]


def _read(uri: Uri, path: str) -> str:
    try:
        return read_regular(Path(path), MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f'"{uri}": {path} cannot be read ({error.strerror}); check the path') from None
    except UnicodeDecodeError:
        raise ConfigError(f'"{uri}": {path} holds other bytes than UTF-8; save it as UTF-8') from None


def _refuse_unknown(uri: Uri, path: str, words: list[str], decoder: Any) -> None:
    """ConfigError that names the words that are not in the dictionary."""
    unknown = [word for word in dict.fromkeys(words) if decoder.lookup_word(word) is None]
    if not words:
        raise ConfigError(f'"{uri}": {path} holds no words')
    if unknown:
        told = ", ".join(unknown[:10]) + (f" … ({len(unknown)} in all)" if len(unknown) > 10 else "")
        raise ConfigError(f'"{uri}": {path}: its dictionary (English, lower case) has no {told}; write other words')


def _search(uri: Uri, path: str, decoder: Any, add: str, given: str, kind: str) -> None:
    try:
        getattr(decoder, add)(SEARCH, given)
        decoder.activate_search(SEARCH)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ConfigError(f'"{uri}": {path} is {kind} ({str(error)[:100]})') from None
