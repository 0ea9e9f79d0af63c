"""No answer about a fake frame: when a picture or a stream is not believed, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_agent.types import Frame, Pixels, StreamCondition, StreamState
from edge_agent.uri import Uri, number, switch

RULES = {"stall": "5", "dark": "on", "frozen": "3", "pause": "30"}
"""Options that every live source of pictures knows, with their defaults."""

DARK, LIGHT = 16, 20
"""luma in 0..255: a frame is dark below the first, and light again from the second on, so that it does not flicker"""
BRIGHT_SHARE = 0.005
"""of the points: what may be brighter in a dark frame (hot pixels)"""
SIDE = 64
"""points a side that a frame is judged by"""
LUMA = np.array([0.114, 0.587, 0.299], np.float32)
"""BGR; ITU-R BT.601"""


@dataclass(frozen=True, slots=True)
class Rules:
    """When a stream is no longer believed."""

    stall: float = 5.0
    """seconds without a frame; the first one may take OPENING longer"""
    dark: bool = True
    frozen: float = 3.0
    """seconds of one and the same picture; 0: never"""
    pause: float = 30.0
    """seconds at most before it is opened again"""


def rules(uri: Uri, known: dict[str, str]) -> Rules:
    """The options of RULES as values. ConfigError when one is wrong."""
    return Rules(
        stall=number(uri, known, "stall", 0.1, 3600) or 5.0,
        dark=switch(uri, known, "dark"),
        frozen=number(uri, known, "frozen", 0.1, 3600),
        pause=number(uri, known, "pause", 0.1, 3600) or 30.0,
    )


class Judge:
    """Remembers what a stream's consumer was told last and the last picture that was new."""

    __slots__ = ("_image", "_points", "_rules", "_since", "said")

    def __init__(self, believed: Rules) -> None:
        self._rules = believed
        self._points = b""
        self._image: Pixels | None = None
        self._since = 0.0
        self.said: tuple[StreamCondition, str] | None = None

    def say(self, condition: StreamCondition, why: str = "") -> list[StreamState]:
        """The state, when it is news."""
        if self.said == (condition, why):
            return []
        self.said = (condition, why)
        return [StreamState(condition, why)]

    def see(self, frame: Frame) -> list[Frame | StreamState]:
        """The frame when it is honest, behind the news that all is well; else the news why not, or nothing yet.

        Dark: almost no point of a 64×64 grid is brighter than DARK, or all have one colour, as a decoder without data
        gives. Frozen: equal to the frame before it, to the bit; such a frame is never given.
        """
        points = frame.image[:: -(-frame.height // SIDE), :: -(-frame.width // SIDE)].reshape(-1, 3)
        if self._rules.dark:
            why = _nothing(points, LIGHT if self.said and self.said[0] == "dark" else DARK)
            if why:
                return [*self.say("dark", why)]
        if self._rules.frozen:
            key = points.tobytes()
            # the whole picture is compared only when the grid is the same: that is the rare case
            if key == self._points and np.array_equal(frame.image, self._image):  # type: ignore[arg-type]
                if frame.mono - self._since < self._rules.frozen:
                    return []
                return [*self.say("frozen", f"the same picture for {self._rules.frozen:g} s and more")]
            self._points, self._image, self._since = key, frame.image, frame.mono
        return [*self.say("ok"), frame]


def _nothing(points: npt.NDArray[np.uint8], dark: int) -> str:
    """Why (n, 3) BGR points are no picture, or ""."""
    luma = points @ LUMA
    if np.count_nonzero(luma >= dark) <= BRIGHT_SHARE * len(luma):
        return "the picture is black"
    if luma.max() - luma.min() < 1 and int(np.ptp(points, axis=0).max()) <= 1:
        return "the picture is one flat colour"
    return ""
