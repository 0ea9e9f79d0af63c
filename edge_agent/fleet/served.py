"""What served on this device, and how far an update has got: HOME/fleet/state.json, whole on the disk before it counts.

"The highest number that ever served" and the versions of the signed metadata stand here, beside what TUF's client keeps
itself: deleting or putting back that folder gets no older bundle onto the device.
"""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec

from edge_agent import files
from edge_agent.errors import RefusedError
from edge_agent.events import UNREADABLE
from edge_agent.fleet.outcome import Outcome, Step

MOST = 4_000_000
"""bytes of the file"""
REMEMBERED = 20
"""refused numbers of a name"""


class Laid(msgspec.Struct, frozen=True):
    """A bundle that serves, or served."""

    number: int
    version: str
    sha256: str
    """of its index"""
    at: float
    """when it was switched to, seconds since 1970"""


class Trying(msgspec.Struct, frozen=True):
    """A bundle on its way."""

    number: int
    version: str
    sha256: str
    """of its index, which is kept beside"""
    step: Step
    since: float
    """seconds since 1970, of the step"""
    starts: int = 0
    """times that this step was begun"""
    why: str = ""
    """of the step back"""
    figures: dict[str, float] = {}


class Known(msgspec.Struct):
    """What is known of one KIND/NAME."""

    serves: Laid | None = None
    before: Laid | None = None
    highest: int = 0
    """that ever served"""
    trying: Trying | None = None
    given_up: dict[str, str] = {}
    """number -> why it failed here"""
    last: Outcome | None = None
    """how the last one ended"""


class Kept(msgspec.Struct):
    """The whole file."""

    bundles: dict[str, Known] = {}
    versions: dict[str, int] = {}
    """role of the signed metadata -> the highest version that was seen"""
    refused: dict[str, int] = {}
    """what was wrong -> bundles that were refused, or given up, so far"""
    newest: float = 0.0
    """the latest time that was ever known, seconds since 1970: a clock that is far before it was set back"""


class Served:
    """The file; of one process."""

    def __init__(self, folder: Path) -> None:
        """`folder`: HOME/fleet. RefusedError where the file cannot be read: what served is not known then."""
        self.folder, self.file = folder, folder / "state.json"
        self._lock = threading.RLock()
        self.kept = Kept()
        try:
            self.kept = msgspec.json.decode(files.read_regular(self.file, MOST), type=Kept)
        except FileNotFoundError:
            pass
        except (OSError, *UNREADABLE) as error:
            why = "is damaged" if not isinstance(error, OSError) else f"cannot be read ({error.strerror})"
            mend = "no update is taken until it is put right, or deleted (then older bundles could be taken once)"
            raise RefusedError(f"{self.file}: {why}; {mend}") from None

    def known(self, key: str) -> Known:
        """Of KIND/NAME; of one that was never begun, a new one that is in no file."""
        return self.kept.bundles.get(key) or Known()

    def save(self) -> None:
        """On the disk, whole, before this returns. OSError."""
        with self._lock:
            raw = msgspec.json.encode(self.kept)
            files.folder(self.folder, files.PRIVATE)
            files.exchange(self.file, raw)

    def index(self, key: str, number: int) -> Path:
        """Where the index of a bundle on its way is kept."""
        return self.folder / "index" / f"{key.replace('/', '.')}.{number}.json"

    def count(self, why: str) -> None:
        """One more was refused, or given up. OSError."""
        self.kept.refused[why] = self.kept.refused.get(why, 0) + 1
        self.save()

    def give_up(self, known: Known, number: int, why: str) -> None:
        """Remember that a number failed here."""
        known.given_up[str(number)] = why
        for old in sorted(known.given_up, key=int)[:-REMEMBERED]:
            del known.given_up[old]
