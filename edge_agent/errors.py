"""All that we raise on purpose.

::

    EdgeAgentError              exit 1: the answer is no
    ├── UsageError              exit 2: the command line or the config is wrong
    │   └── ConfigError
    ├── SourceError             a source cannot be opened, or ended for good
    ├── ModelError              a model cannot be used
    │   ├── ManifestError       what is written about it is wrong or missing
    │   ├── RefusedError        it was read or tried, and it must not serve
    │   └── FetchError          its files cannot be had, or are not the ones that were promised
    ├── InputError              one sample is bad (corrupt picture, empty text): it is skipped, the pipeline goes on
    ├── StoreError              the disk below the outbox cannot be used at all
    └── LinkError               the broker cannot be used at all (a bad URL, an unreadable password file)

Each message is one line: what is wrong, where, and what to do about it. It holds no user, password or token of an
address, as it goes into logs, states and replies.
"""

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
    """A model's files cannot be had, or are not the ones that were promised."""


class InputError(EdgeAgentError):
    """One sample is bad; it is skipped and the pipeline goes on."""


class StoreError(EdgeAgentError):
    """The disk below the outbox cannot be used at all."""


class LinkError(EdgeAgentError):
    """The broker cannot be used at all."""
