"""What is understood of texts: words in empty places, answers, what is alike, topics, summaries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from edge_agent.events.envelope import Event
from edge_agent.got import Words
from edge_agent.types import Noticed


class Guess(msgspec.Struct, frozen=True):
    """A word that could stand in a place of a text."""

    word: Words
    score: Annotated[float, msgspec.Meta(ge=0, le=1, description="probability among all words of the model")]


class Place(msgspec.Struct, frozen=True):
    """A place of a text that is masked or doubted."""

    start: Annotated[int, msgspec.Meta(ge=0, description="characters from the beginning of the text")]
    end: Annotated[int, msgspec.Meta(ge=0, description="exclusive")]
    words: Annotated[tuple[Guess, ...], msgspec.Meta(description="the likeliest first")]


class Fill(Noticed, frozen=True):
    """What could stand in the masked places of one text, or in those of its words that were doubted."""

    filled: Annotated[str, msgspec.Meta(description="the text with the likeliest word in each place")]
    places: tuple[Place, ...]
    repaired: Annotated[bool, msgspec.Meta(description="the places were no masks: words of a low score")] = False


class Passage(msgspec.Struct, frozen=True):
    """A piece of a text that has to do with a question."""

    text: Words
    source: Annotated[str, msgspec.Meta(description="the file or pipeline that it is from; empty for a given text")]
    score: Annotated[float, msgspec.Meta(ge=0, le=1, description="how much it has in common with the question")]


class Answer(Noticed, frozen=True):
    """What texts say to a question."""

    answer: Annotated[str | None, msgspec.Meta(description="words of the first passage that has one; null: none has")]
    score: Annotated[float, msgspec.Meta(ge=0, le=1, description="of the answer against none")]
    extracted: Annotated[bool, msgspec.Meta(description="a model looked for it; false: the passages are the answer")]
    passages: Annotated[tuple[Passage, ...], msgspec.Meta(description="the best first")]


class Near(msgspec.Struct, frozen=True):
    """A stored sentence that is like a text."""

    text: Words
    score: Annotated[float, msgspec.Meta(ge=-1, le=1, description="cosine of the two vectors")]


class Similar(Noticed, frozen=True):
    """What of a store is most like one text."""

    near: Annotated[tuple[Near, ...], msgspec.Meta(description="the most alike first")]
    store: str
    stored: Annotated[int, msgspec.Meta(ge=0, description="sentences in the store")]


class Topic(Noticed, frozen=True):
    """Lines in a row that are about one thing, now that another one has begun."""

    lines: Annotated[int, msgspec.Meta(ge=1)]
    since: Annotated[float, msgspec.Meta(description="capture of the first of them, seconds since 1970")]
    first: Annotated[str, msgspec.Meta(description="the first of them")]
    words: Annotated[tuple[str, ...], msgspec.Meta(description="that are frequent in it and rare before it")]


class Summary(Noticed, frozen=True):
    """The sentences that stand for many."""

    sentences: Annotated[tuple[str, ...], msgspec.Meta(description="in the order in which they came")]
    of: Annotated[int, msgspec.Meta(ge=1, description="sentences that these stand for")]
    since: Annotated[float, msgspec.Meta(description="capture of the first of them, seconds since 1970")]


# ── the events that say them ─────────────────────────────────────────────────────────────────────────────


class FillEvent(Event, frozen=True, kw_only=True, tag="fill"):
    """What could stand in the masked or doubted places of one line of text."""

    text: Words
    filled: Annotated[Words, msgspec.Meta(description="the text with the likeliest word in each place")]
    places: tuple[Place, ...]
    repaired: Annotated[bool, msgspec.Meta(description="the places were no masks: words of a low score")] = False

    @staticmethod
    def words(body: Mapping[str, Any]) -> str:
        return f'"{body["filled"][:60]}"   "{body["text"][:60]}"'


class AnswerEvent(Event, frozen=True, kw_only=True, tag="answer"):
    """What texts say to a question."""

    text: Annotated[Words, msgspec.Meta(description="the question")]
    answer: Annotated[Words | None, msgspec.Meta(description="words of a passage; null: none has one")]
    score: Annotated[float, msgspec.Meta(ge=0, le=1)]
    extracted: Annotated[bool, msgspec.Meta(description="a model looked for it; false: the passages are the answer")]
    passages: tuple[Passage, ...]

    @staticmethod
    def words(body: Mapping[str, Any]) -> str:
        best = body["passages"][0]["text"] if body["passages"] else "nothing"
        return f'{(body["answer"] or best)[:80]}   "{body["text"][:60]}"'


class SimilarEvent(Event, frozen=True, kw_only=True, tag="similar"):
    """What of the stored sentences is most like one line of text."""

    text: Words
    near: tuple[Near, ...]
    store: str
    stored: Annotated[int, msgspec.Meta(ge=0, description="sentences in the store")]

    @staticmethod
    def words(body: Mapping[str, Any]) -> str:
        near = f'{body["near"][0]["score"]:.2f} "{body["near"][0]["text"][:60]}"' if body["near"] else "nothing stored"
        return f'{near}   "{body["text"][:60]}"'


class TopicEvent(Event, frozen=True, kw_only=True, tag="topic"):
    """Lines in a row that were about one thing; `at` is that of the last of them."""

    lines: Annotated[int, msgspec.Meta(ge=1)]
    since: Annotated[str, msgspec.Meta(description="capture of the first of them, RFC 3339 UTC")]
    first: Annotated[Words, msgspec.Meta(description="the first of them")]
    last: Annotated[Words, msgspec.Meta(description="the last of them")]
    keywords: Annotated[tuple[Words, ...], msgspec.Meta(description="frequent in it, and rare before it")] = ()

    @staticmethod
    def words(body: Mapping[str, Any]) -> str:
        return f'{body["lines"]} lines: {", ".join(body["keywords"])}   "{body["first"][:60]}"'


class SummaryEvent(Event, frozen=True, kw_only=True, tag="summary"):
    """The sentences that stand for all lines of a while; `at` is the capture of the last of these."""

    sentences: Annotated[tuple[Words, ...], msgspec.Meta(description="in the order in which they came")] = ()
    of: Annotated[int, msgspec.Meta(ge=1, description="sentences that these stand for")]
    since: Annotated[str, msgspec.Meta(description="capture of the first of them, RFC 3339 UTC")]

    @staticmethod
    def words(body: Mapping[str, Any]) -> str:
        first = body["sentences"][0] if body["sentences"] else ""
        return f'{len(body["sentences"])} of {body["of"]} sentences: "{first[:80]}"'
