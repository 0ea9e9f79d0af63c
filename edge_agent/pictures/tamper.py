"""Whether a camera still sees what it usually sees: moved, covered or blurred, by a look a second.

What passes by is taken out: the median of the last eight looks counts. It is compared with the views that are usual
(view.py). A view that stays during the time of learning becomes one, so day and night, or the presets of a camera that
is turned on purpose, are views of their own. The figures are in docs/anomaly.md.
"""

from __future__ import annotations

import io
import zipfile
from collections import deque
from typing import Literal

import numpy as np

from edge_agent.pictures.view import (
    COLOUR,
    HIGH,
    KEPT,
    LIGHT,
    LOOKS,
    NOISE,
    SHARP,
    SOME,
    WIDE,
    Look,
    Small,
    View,
    median,
    shrunk,
)
from edge_agent.types import Floats, Pixels

Doubt = Literal["", "moved", "covered", "blurred"]

LOOK_S = 1.0
"""seconds between two looks"""
STAYS = 5
"""looks in a row at a usual view before anything is taken back; before it is said, all whose median counts are none"""
ENOUGH = 300
"""looks at a view from which on it is known"""
MOST_VIEWS = 8
ADOPT_S = 6 * 3600.0
"""seconds after which a view that stays is taken as usual, though it was said to be none"""
MISFIT, PART, LOST = 0.5, 0.3, 0.25
"""fit below which a block shows something else; the share of the view's edges up to which only a part is covered; and
the share of a block's edges that is left where it shows nothing any more"""


def doubt_of(look: Look, view: View) -> tuple[Doubt, str]:
    """What is wrong with a look that is none at a view, and in what."""
    known = view.look()
    off = look.off(known) / view.limits()
    worst, other = int(off.argmax()), float(known.weight[look.fits(known) < MISFIT].sum())
    now, before = (look.energy + NOISE) * np.exp(2 * (known.light - look.light)), known.energy + NOISE
    lost, gained = float(known.weight[now < LOST * before].sum()), float(look.weight[LOST * now > before].sum())
    if worst == SHARP:
        return "blurred", "what was sharp is no longer: out of focus, dirty, wet or fogged"
    if worst == LIGHT:
        return "covered", "it is far darker or brighter than usual"
    if worst == COLOUR:
        return "covered", "a part has other colours than usual: dirt, or a thing that was put there or taken away"
    if other < PART or (lost >= PART and gained < lost / 2):
        return "covered", f"{max(other, lost):.0%} of what it usually shows is hidden or another thing"
    return "moved", "it shows another view than usual"


class Tamper:
    """One camera's looks, one after the other. Of one thread."""

    def __init__(self, learn_s: float, kept: bytes | None = None) -> None:
        """`learn_s`: seconds in which each view that stays is taken as usual. `kept`: what `packed` gave before.

        Raises ValueError where that is something else.
        """
        self.learn_s, self.learned_s, self.views = learn_s, 0.0, list[View]()
        self.doubt: Doubt = ""
        self.why = ""
        self.crowded = False
        """more views came than are kept: it moves by itself"""
        self._looks: deque[Small] = deque(maxlen=LOOKS)
        self._last = float("-inf")
        self._strange = self._same = self._another = 0
        """looks in a row at no usual view, at one, and at what is wrong in another way than is said"""
        self._new: View | None = None
        """the view that is none of the usual ones"""
        if kept is not None:
            self._unpack(kept)

    @property
    def armed(self) -> bool:
        """Whether anything would be said."""
        return self.learned_s >= self.learn_s and not self.crowded and bool(self._known())

    @property
    def about(self) -> str:
        """Why nothing is said of tampering, one line; empty while it learns, and once it is armed."""
        if self.learned_s < self.learn_s or self.armed:
            return ""
        if self.crowded:
            return f"the picture has more than {MOST_VIEWS} usual views: the camera moves by itself, so none is told"
        return "no view stayed long enough to be a usual one, so tampering is not told"

    def __call__(self, image: Pixels, clock: float) -> bool:
        """Take a frame at `clock` seconds; whether `doubt` is another one now."""
        since = clock - self._last
        if since < LOOK_S:
            return False
        if since > 10 * LOOK_S:
            self._looks.clear()
        self._last = clock
        self._looks.append(shrunk(image))
        if len(self._looks) < LOOKS:
            return False
        self.learned_s += min(since, 2 * LOOK_S)
        return self._judge(Look(median(self._looks)))

    def _known(self) -> list[View]:
        return [view for view in self.views if view.looks >= ENOUGH and len(view.offs) >= SOME]

    def _nearest(self, look: Look, among: list[View]) -> tuple[View | None, Floats, float]:
        """The view that a look is nearest to, how far off that it is, and how far in shares of its limits."""
        nearest, least, far = None, np.zeros(5, np.float32), float("inf")
        for view in among:
            off = look.off(view.look())
            share = float((off / view.limits()).max())
            if share < far:
                nearest, least, far = view, off, share
        return nearest, least, far

    def _judge(self, look: Look) -> bool:
        learning = self.learned_s < self.learn_s
        view, off, far = self._nearest(look, self.views if learning else self._known())
        if view is not None and far <= (2 if learning else 1):
            view.learn(look, off)
            self._strange, self._same, self._new = 0, self._same + 1, None
            return self._same >= STAYS and self._say("", "")
        self._strange, self._same = self._strange + 1, 0
        if view is None or not self.armed:
            self._get_used_to(look, STAYS * LOOKS)
            return False
        if self._get_used_to(look, int(ADOPT_S / LOOK_S)):
            return self._say("", "")
        return self._strange >= LOOKS and self._doubt(*doubt_of(look, view))

    def _doubt(self, doubt: Doubt, why: str) -> bool:
        """A look is none at what is usual; between two views a median shows neither."""
        self._another = self._another + 1 if doubt != self.doubt else 0
        return (not self.doubt or self._another >= LOOKS) and self._say(doubt, why)

    def _get_used_to(self, look: Look, looks: int) -> bool:
        """Whether a view that is new has stayed for so many looks, and is taken as a usual one now."""
        off = look.off(self._new.look()) if self._new is not None else None
        if self._new is None or off is None or float((off / self._new.limits()).max()) > 2:
            self._new = View(look.whole, 1)
            return False
        self._new.learn(look, off)
        if self._new.looks < looks:
            return False
        self.crowded = len(self.views) == MOST_VIEWS
        if not self.crowded:
            self.views.append(self._new)
        self._new, self._strange = None, 0
        return True

    def _say(self, doubt: Doubt, why: str) -> bool:
        news = doubt != self.doubt
        self.doubt, self.why = doubt, why
        return news

    def packed(self) -> bytes:
        """What was learned, for another one of it."""
        arrays = {"learned": np.array([self.learned_s, float(self.crowded)])}
        for number, view in enumerate(self.views):
            arrays[f"mean{number}"] = np.clip(np.rint(view.mean * 64), 0, 65535).astype(np.uint16)
            arrays[f"offs{number}"] = np.stack(view.offs) if view.offs else np.zeros((0, 10), np.float32)
            arrays[f"strange{number}"] = view.strange.astype(np.float32)
            arrays[f"looks{number}"] = np.array(view.looks)
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        return file.getvalue()

    def _unpack(self, kept: bytes) -> None:
        try:
            with np.load(io.BytesIO(kept), allow_pickle=False) as arrays:
                self.learned_s, crowded = (float(x) for x in arrays["learned"])
                self.crowded = bool(crowded)
                for number in range(min(MOST_VIEWS, len(arrays.files) // 4)):
                    mean, offs = arrays[f"mean{number}"], arrays[f"offs{number}"].astype(np.float32)
                    one = View((mean / 64).astype(np.float32), int(arrays[f"looks{number}"]))
                    odd = arrays[f"strange{number}"].astype(np.float32)
                    shapes = mean.shape, offs.shape[1:], odd.shape
                    if shapes != ((HIGH, WIDE, 3), (10,), one.strange.shape) or not np.isfinite(offs).all():
                        raise ValueError("another form")
                    one.strange, one.offs = np.nan_to_num(odd), list(offs[-KEPT:])
                    self.views.append(one)
        except (OSError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"no views of ours ({error})") from None
