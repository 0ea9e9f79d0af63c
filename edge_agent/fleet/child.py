"""TUF's own client, in a process of its own: 46 MB come and go with a look at the repository.

Reads one Asked and writes one Answer, JSON each. What a stranger sent never enters the agent's memory.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edge_agent import __version__
from edge_agent.errors import FetchError
from edge_agent.registry.download import SameOrSafer, request_of, trusting

MOST_MEMORY = 512 << 20
"""bytes of address space"""
TIMEOUT = 30.0
"""seconds without a byte"""
MOST_INDEX = 1_000_000


class Asked(msgspec.Struct, frozen=True):
    """What is looked for."""

    repository: str
    """address, with / at its end"""
    folder: str
    """of TUF's metadata on this device"""
    root: bytes
    """what is trusted, as it was given at enrolment"""
    targets: list[str]
    """paths, of which the first that is there is wanted"""
    ca: str | None = None
    """PEM of the authority that is trusted, in place of those of the system"""


class Answer(msgspec.Struct, frozen=True):
    """What was found."""

    raw: bytes | None = None
    """the target, verified; None where none of them is there"""
    versions: dict[str, int] = {}
    """of the roles, as far as they were verified"""
    expires: float = 0.0
    """seconds since 1970 at which the first of them is too old"""
    refused: str = ""
    """why what is there may not be trusted, one line"""
    unreachable: str = ""
    """why nothing can be said, one line"""


def main() -> None:
    """One question from stdin, one answer to stdout."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=Asked)
    sys.stdout.buffer.write(msgspec.json.encode(answered(asked)))


def answered(asked: Asked) -> Answer:
    """What is found, whatever goes wrong."""
    from tuf.api import exceptions

    try:
        return _looked(asked)
    except exceptions.ExpiredMetadataError as error:
        return Answer(refused=f"{_words(error)}: its publisher has to renew it (edge-agent repository renew)")
    except exceptions.DownloadHTTPError as error:
        return Answer(unreachable=f"answers HTTP {error.status_code}: the metadata of a repository is not there")
    except exceptions.DownloadError as error:
        return Answer(unreachable=_words(error.__cause__ or error))
    except exceptions.RepositoryError as error:
        return Answer(refused=_words(error))
    except (OSError, FetchError) as error:
        return Answer(unreachable=_words(error))


def _looked(asked: Asked) -> Answer:
    from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

    class Fetch(FetcherInterface):  # type: ignore[misc]
        def _fetch(self, url: str) -> Iterator[bytes]:
            return _pieces(url, asked.ca)

    folder = Path(asked.folder)
    config = UpdaterConfig(max_delegations=64)
    places = (f"{asked.repository}metadata/", None, f"{asked.repository}targets/")
    updater = Updater(str(folder), *places, Fetch(), config, bootstrap=asked.root)
    updater.refresh()
    found = next((info for path in asked.targets if (info := updater.get_targetinfo(path)) is not None), None)
    versions, expires = _kept(folder)
    if found is None:
        return Answer(None, versions, expires)
    if found.length > MOST_INDEX:
        return Answer(refused=f"its index has {found.length} bytes; {MOST_INDEX} at most are read")
    path = Path(updater.download_target(found, str(folder / "index.json")))
    return Answer(path.read_bytes(), versions, expires)


def _kept(folder: Path) -> tuple[dict[str, int], float]:
    """Versions of the roles that were verified and kept just now, and when the first of them is too old."""
    from tuf.api.metadata import Metadata

    roles = ("root", "timestamp", "snapshot", "targets")
    signed = {role: Metadata.from_file(str(folder / f"{role}.json")).signed for role in roles}
    return {role: one.version for role, one in signed.items()}, min(one.expires.timestamp() for one in signed.values())


def _pieces(url: str, ca: str | None) -> Iterator[bytes]:
    """What lies at an address of ours: a file, or over HTTP."""
    from tuf.api import exceptions

    opener = urllib.request.build_opener(SameOrSafer, urllib.request.HTTPSHandler(context=trusting(ca)))
    try:
        answer = opener.open(request_of(url, {"User-Agent": f"edge-agent/{__version__}"}), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        raise exceptions.DownloadHTTPError(f"HTTP {error.code}", error.code) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, FileNotFoundError) or "No such file" in str(error.reason):
            raise exceptions.DownloadHTTPError("no such file", 404) from None
        raise
    return iter(lambda: answer.read(1 << 16), b"")


def _words(error: BaseException) -> str:
    """An error in a few words on one line."""
    inner = getattr(error, "reason", None)
    return " ".join(str(inner if inner is not None else error).split())[:300] or type(error).__name__
