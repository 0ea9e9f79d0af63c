"""Training: pictures that were kept are looked through, and states are taught from what a camera shows now."""

from __future__ import annotations

import io
import re
import secrets
import tempfile
import threading
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from starlette.responses import Response

from edge_agent import files, paths
from edge_agent.pictures.draw import jpeg
from edge_agent.pictures.read import read_picture
from edge_agent.samples import coco, collected, recorded
from edge_agent.serving.teach import Example, Taught, teach
from edge_agent.tasks.state.features import WHOLE
from edge_agent.toml import NAME
from edge_agent.ui.calls import Ask, Call, Refused
from edge_agent.ui.live import line_of, next_frame
from edge_agent.ui.session import Done

if TYPE_CHECKING:
    from edge_agent.ui.server import Page

MOST_EXAMPLES = 200
"""pictures of a state"""
MOST_EXPORT = 500_000_000
"""bytes of pictures in an export"""
_Label = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f/\\.][^\x00-\x1f/\\]{0,63}\Z")]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Sample(msgspec.Struct, frozen=True):
    """A picture that was kept, and what was found in it."""

    name: str
    about: collected.About


class Samples(msgspec.Struct, frozen=True):
    """Those that wait, the newest first, and how many were taken."""

    waiting: list[Sample]
    taken: int
    collects: Annotated[bool, msgspec.Meta(description="whether the config has pictures kept: [samples] collect")]


class Marked(msgspec.Struct, frozen=True):
    """A box as a person has it."""

    label: _Label
    box: tuple[float, float, float, float]


class Correct(msgspec.Struct, frozen=True):
    """What is in a picture, all of it."""

    boxes: Annotated[list[Marked], msgspec.Meta(max_length=1000)]


class Shot(msgspec.Struct, frozen=True):
    """What a camera shows now is an example of a state."""

    pipeline: str
    state: _Label


class Region(msgspec.Struct, frozen=True):
    """The part of the picture that shows it: left, top, right, bottom in fractions."""

    region: tuple[_Share, _Share, _Share, _Share] = WHOLE


class Training:
    """What the calls do."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._one = threading.Lock()

    # ── pictures that were kept ──────────────────────────────────────────────────────────────────────────

    def samples(self, ask: Ask) -> Samples:
        """Those that wait to be looked through."""
        waiting = [Sample(one.path.name, one.about) for one in collected.collected()[::-1]]
        taken = coco.read(recorded.place(), recorded.MOST_LABELS).images if recorded.labels() else []
        return Samples(waiting, len(taken), bool(self._page.now.config.samples.collect))

    def picture(self, ask: Ask) -> Response:
        """One of them."""
        data = files.read_regular(_sample(ask).path, 20_000_000)
        return Response(data, 200, {"Cache-Control": "private, max-age=3600"}, "image/jpeg")

    def take(self, ask: Ask) -> Done:
        """It shows this, and nothing else."""
        one, boxes = _sample(ask), ask.body.boxes
        ids = {box.label: box.class_id for box in one.about.boxes}
        for marked in boxes:
            ids.setdefault(marked.label, max(ids.values(), default=0) + 1)
        image = coco.CocoImage(1, one.path.name, one.about.width, one.about.height)
        rows = [coco.CocoBox(1, ids[each.label], _sides(each.box)) for each in boxes]
        whole = coco.Coco([image], rows, [coco.CocoCategory(key, label) for label, key in ids.items()])
        with self._one, tempfile.TemporaryDirectory() as place:
            file = Path(place) / "one.json"
            files.write_private(file, msgspec.json.encode(whole))
            collected.take(file)
        return Done(f"taken, with {len(rows)} boxes")

    def reject(self, ask: Ask) -> Done:
        """It is of no use."""
        return Done(f"{collected.delete([_sample(ask).path.name])} deleted")

    def export(self, ask: Ask) -> Response:
        """What was taken, as COCO."""
        labels = recorded.labels()
        if labels is None:
            raise Refused(404, "no picture was taken yet")
        images, made = coco.read(labels, recorded.MOST_LABELS).images, io.BytesIO()
        with zipfile.ZipFile(made, "w") as file:
            file.write(labels, "instances.json")
            for row in images:
                path = labels.with_name(Path(row.file_name).name)
                with suppress(OSError):  # it was deleted by hand
                    file.writestr(path.name, files.read_regular(path, MOST_EXPORT - made.tell()))
        headers = {"Content-Disposition": 'attachment; filename="samples.zip"', "Cache-Control": "no-store"}
        return Response(made.getvalue(), 200, headers, "application/zip")

    # ── states ───────────────────────────────────────────────────────────────────────────────────────────

    def states(self, ask: Ask) -> dict[str, dict[str, int]]:
        """What is being taught: name -> state -> examples."""
        here = _folder()
        names = [place for place in sorted(here.iterdir()) if place.is_dir()] if here.is_dir() else []
        return {place.name: {state.name: len(_examples(state)) for state in sorted(place.iterdir())} for place in names}

    def shoot(self, ask: Ask) -> Done:
        """Keep what a camera shows now."""
        line = line_of(self._page, ask.body.pipeline)
        place = _folder(ask) / ask.body.state
        if len(_examples(place)) >= MOST_EXAMPLES:
            raise Refused(409, f"there are {MOST_EXAMPLES} of {ask.body.state!r}: that is enough")
        frame, found = next_frame(line)
        image = line.show(frame, found)
        if image is None:
            raise Refused(409, "what is to be blurred was not looked for, so the picture is not kept")
        files.folder(place, files.PRIVATE)
        files.write_private(place / f"{secrets.token_hex(6)}.jpg", jpeg(image, 95))
        return Done(f"{len(_examples(place))} of {ask.body.state}")

    def teach(self, ask: Ask) -> Taught:
        """Make a model of the examples; it can serve at once."""
        name, here = ask.path("name"), _folder(ask)
        if not here.is_dir():
            raise Refused(404, f"there are no examples of {name!r}")
        states = [(state.name, path) for state in sorted(here.iterdir()) for path in _examples(state)]
        if not self._one.acquire(blocking=False):
            raise Refused(409, "something else is being taught or taken; try again when that is done")
        try:
            told = teach(name, (Example(label, path.name, read_picture(path).image) for label, path in states),
                         ask.body.region)  # fmt: skip
        finally:
            self._one.release()
        self._page.now.swap.look.set()
        return told

    def forget(self, ask: Ask) -> Done:
        """Delete the examples; the model that was made of them stays."""
        here, gone = _folder(ask), 0
        for state in here.iterdir() if here.is_dir() else ():
            for path in _examples(state):
                path.unlink(missing_ok=True)
                gone += 1
            with suppress(OSError):
                state.rmdir()
        with suppress(OSError):
            here.rmdir()
        return Done(f"{gone} examples deleted")


def _sample(ask: Ask) -> collected.Collected:
    found = next((one for one in collected.collected() if one.path.name == ask.path("name")), None)
    if found is None:
        raise Refused(404, "there is no such picture, or it was looked through already")
    return found


def _sides(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Left, top, width, height. Refused."""
    left, top, right, bottom = box
    if not (0 <= left < right <= 1e5 and 0 <= top < bottom <= 1e5):
        raise Refused(400, "a box has its left side before its right one, and its top above its bottom, in pixels")
    return left, top, right - left, bottom - top


def _folder(ask: Ask | None = None) -> Path:
    """Where examples lie: all of them, or of what is to be called so. Refused."""
    here = paths.home() / "teach"
    if ask is None:
        return here
    if not re.fullmatch(NAME, ask.path("name")):
        raise Refused(400, "a name has 1 to 64 letters, digits or _ . -")
    return here / ask.path("name")


def _examples(state: Path) -> list[Path]:
    return sorted(state.glob("*.jpg"))


def calls(page: Page) -> list[Call]:
    """Those of training."""
    do, sample, state = Training(page), "/api/v1/samples/{name}", "/api/v1/states/{name}"
    return [
        Call("GET", "/api/v1/samples", "operator", "Pictures that wait to be looked through.", do.samples, Samples),
        Call("GET", "/api/v1/samples.zip", "operator", "What was taken, as COCO.", do.export, media="application/zip"),
        Call("GET", sample, "operator", "One of the pictures.", do.picture, media="image/jpeg"),
        Call("POST", sample, "operator", "Say all that is in it: it is taken.", do.take, Done, Correct),
        Call("DELETE", sample, "operator", "Delete it.", do.reject, Done),
        Call("GET", "/api/v1/states", "operator", "Examples of states.", do.states, dict[str, dict[str, int]]),
        Call("POST", f"{state}/examples", "operator", "Keep what a camera shows now.", do.shoot, Done, Shot),
        Call("POST", state, "operator", "Teach the states: a model is made.", do.teach, Taught, Region),
        Call("DELETE", state, "operator", "Delete the examples.", do.forget, Done),
    ]  # fmt: skip
