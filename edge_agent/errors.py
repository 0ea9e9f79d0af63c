"""All that we raise on purpose.

::

    EdgeAgentError              exit 1: the answer is no
    ├── UsageError              exit 2: the command line or the config is wrong
    │   └── ConfigError
    ├── SourceError             a source cannot be opened, or ended for good
    ├── ModelError              a model cannot be used
    │   ├── ManifestError       what is written about it is wrong or missing
    │   ├── RefusedError        it was read or tried, and it must not serve
    │   └── FetchError          its files cannot be had
    │       └── WrongFileError  they are not the ones that were promised
    ├── InputError              one sample is bad (corrupt picture, empty text): it is skipped, the pipeline goes on
    ├── LateError               one sample is too old when its turn comes: it is given up, the pipeline goes on
    ├── NotNowError             it may go well later: no clock, no network, no budget left; nothing has changed
    ├── StoreError              the disk below the outbox cannot be used at all
    └── LinkError               the broker cannot be used at all (a bad URL, an unreadable password file)

Each message is one line: what is wrong, where, and what to do about it. It holds no user, password or token of an
address, as it goes into logs, states and replies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from edge_agent.redact import redact


class EdgeAgentError(Exception):
    """Root of the tree; `exit_code` is what the command line ends with."""

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        super().__init__(redact(str(message)))


class UsageError(EdgeAgentError):
    """The command line is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """The config file is wrong."""


class SourceError(EdgeAgentError):
    """A source cannot be opened, or ended for good."""


class ModelError(EdgeAgentError):
    """A model cannot be used."""


class ManifestError(ModelError):
    """What is written about a model is wrong or missing."""


class RefusedError(ModelError):
    """A model was read or tried, and must not serve."""


class FetchError(ModelError):
    """A model's files cannot be had."""


class WrongFileError(FetchError):
    """They are not the ones that were promised."""


class InputError(EdgeAgentError):
    """One sample is bad; it is skipped and the pipeline goes on."""


class LateError(EdgeAgentError):
    """One sample is too old when its turn comes; it is given up and the pipeline goes on."""


class NotNowError(EdgeAgentError):
    """It may go well later; nothing has changed."""


class StoreError(EdgeAgentError):
    """The disk below the outbox cannot be used at all."""


class LinkError(EdgeAgentError):
    """The broker cannot be used at all."""


@contextmanager
def within(what: str) -> Iterator[None]:
    """An EdgeAgentError from here says first what it happened in."""
    try:
        yield
    except EdgeAgentError as error:
        raise type(error)(f"{what}: {error}") from None


def nearest(given: str, known: Iterable[str], meant: Mapping[str, str] | None = None, cutoff: float = 0.6) -> str:
    """The end of a message on an unknown name: `; did you mean "…"?`, or which are known (a dozen at most).

    `meant`: other words -> the names that they may stand for, parted by spaces, where no spelling gives it away; a
    space within a name is a _ there. `cutoff`: 0..1, how alike two spellings are
    at least; more than 0.6 where a wrong guess would be acted upon.
    """
    names = {name.casefold(): name for name in known}
    near = _nearest(given.strip().casefold(), names, meant or {}, cutoff)
    if near is not None:
        return f'; did you mean "{names[near]}"?'
    listed = list(names.values())
    more = f" … ({len(listed)} in all)" if len(listed) > 12 else ""
    return f"; known are {', '.join(listed[:12])}{more}"


def _nearest(key: str, names: Mapping[str, str], meant: Mapping[str, str], cutoff: float) -> str | None:
    import difflib

    words = meant.get(key, "").split()
    same = [key, *(each for word in words for each in (word, word.replace("_", " ")))]
    near = [word for word in same if word in names]
    near = near or difflib.get_close_matches(key, names, n=1, cutoff=cutoff)
    near = near or [word for word in names if key and sorted(word) == sorted(key)]
    return near[0] if near else None


def tenfold(count: int) -> bool:
    """Whether `count` is 1, 10, 100, ...: what happens often is said seldom."""
    return str(count).rstrip("0") == "1"
