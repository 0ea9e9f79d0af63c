"""Models: what is here and what serves, how well and how fast; dropped in, rolled back, fetched, removed."""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from edge_agent import paths
from edge_agent.errors import EdgeAgentError
from edge_agent.files import folder, read_regular
from edge_agent.gate.read import read
from edge_agent.gate.verdicts import notes, refusals, remembered
from edge_agent.manifest import Made, Manifest
from edge_agent.registry import catalogue
from edge_agent.registry.add import add, remove, rollback
from edge_agent.samples import evaluated
from edge_agent.samples.evaluated import Evaluated
from edge_agent.serving.models import Tried, try_all
from edge_agent.ui.calls import Ask, Call, Refused
from edge_agent.ui.session import Done

if TYPE_CHECKING:
    from edge_agent.ui.server import Page

MOST_FILE, SPARE = 1_000_000_000, 200_000_000
"""bytes of a model that is dropped in, and those that the disk is to have left"""
SILENT_S = 30.0
"""seconds without a byte after which an upload is given up"""
MOST_CARD, MOST_PICTURE = 100_000, 20_000_000


class Variant(msgspec.Struct, frozen=True):
    """A file of a model, as it was raced on this device."""

    file: str
    precision: str
    bytes: int
    ms: Annotated[float | None, msgspec.Meta(description="median of a run; null: not raced here")]
    threads: int


class Model(msgspec.Struct, frozen=True):
    """A model in the registry."""

    name: str
    task: str
    family: str
    version: str
    state: str
    licence: str
    trained_by: str
    bytes: int
    before: Annotated[str, msgspec.Meta(description="the version that a roll back brings again; empty: none")]
    added: Annotated[bool, msgspec.Meta(description="here, and no part of the program: it can be removed")]
    serves: Annotated[list[str], msgspec.Meta(description="pipelines, each with why this file and no other")]
    why: str


class Report(msgspec.Struct, frozen=True):
    """The report card of a model."""

    name: str
    version: str
    description: str
    licence: str
    trained_by: str
    labels: list[str]
    parent: str
    made: Made | None
    sources: Annotated[list[str], msgspec.Meta(description="file, where it is from, SHA-256")]
    refusals: list[str]
    notes: Annotated[list[str], msgspec.Meta(description="what its trials here said, against its parent, too")]
    variants: list[Variant]
    card: Annotated[str, msgspec.Meta(description="what its makers wrote, Markdown")]
    evaluated: Annotated[Evaluated | None, msgspec.Meta(description="what `evaluate --card` found")]


class Added(msgspec.Struct, frozen=True):
    """What became of a file that was dropped in."""

    name: str
    task: str
    family: str
    reasons: Annotated[list[str], msgspec.Meta(description="how it was read")]
    trials: Annotated[list[str], msgspec.Meta(description="how it proved itself")]


class Models:
    """What the calls of models do; one at a time changes something."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._changing = threading.Lock()

    def _serving(self) -> dict[str, list[str]]:
        """Name of a model -> the pipelines that run it, and why."""
        found: dict[str, list[str]] = {}
        for line in list(self._page.now.lines):
            for why in line.models:
                found.setdefault(why.partition(" ")[0], []).append(f"{line.config.name}: {why}")
        return found

    def all(self, ask: Ask) -> list[Model]:
        """Those of the registry."""
        serving = self._serving()
        return [self._model(row, serving.get(row["name"], [])) for row in catalogue.listing()]

    def _model(self, row: dict[str, Any], serves: list[str]) -> Model:
        name = row["name"]
        keys = ("name", "task", "family", "version", "state", "licence", "trained_by", "bytes")
        same = {key: row[key] for key in keys}
        added = (paths.home() / "models" / name).is_symlink() or row["state"] not in ("carried", "absent")
        before = catalogue.before(name) if row["task"] else ""
        return Model(**same, before=before, added=added, serves=serves, why=row.get("why", ""))

    def report(self, ask: Ask) -> Report:
        """The report card of one."""
        located = catalogue.locate(_name(ask))
        made = located.manifest
        card = located.folder / made.card if made.card else None
        return Report(
            name=made.name,
            version=made.version,
            description=made.description,
            licence=made.licence,
            trained_by=made.trained_by,
            labels=list(made.labels),
            parent=made.parent or (made.made.parent if made.made else ""),
            made=made.made,
            sources=[f"{row.title()}: {', '.join(row.sources) or 'beside it'}; {row.sha256}" for row in made.file],
            refusals=refusals(made),
            notes=notes(made),
            variants=_variants(made),
            card=_text(card) if card is not None else "",
            evaluated=evaluated.read(made.name),
        )

    def worst(self, ask: Ask) -> Response:
        """One of the pictures that it did worst on. Refused."""
        known, picture = evaluated.read(_name(ask)), ask.path("picture")
        if known is None or picture not in known.pictures or not evaluated.PICTURE.fullmatch(picture):
            raise Refused(404, "there is no such picture, or no more")
        data = read_regular(evaluated.place(_name(ask)) / picture, MOST_PICTURE)
        return Response(data, 200, {"Cache-Control": "private, max-age=60"}, "image/jpeg")

    async def add(self, ask: Ask) -> Added:
        """Read, prove and add a file that is dropped in. Refused, EdgeAgentError with the reason."""
        name, file = ask.query("name") or None, Path(ask.query("file")).name
        if not re.fullmatch(r"[\w.-][\w. -]{0,120}\.(onnx|tflite)", file):
            raise Refused(400, "file: give the name of a .onnx or .tflite file")
        with self._alone():
            home = folder(paths.home())
            with tempfile.TemporaryDirectory(dir=home, prefix=".dropped-") as place:
                await received(ask.request, Path(place) / file)
                made: Added = await run_in_threadpool(self._added, Path(place) / file, name)
            self._page.now.swap.look.set()
        return made

    def _added(self, file: Path, name: str | None) -> Added:
        tried = list[Tried]()
        try:
            located = add(file, name, lambda path: read(path).seen, lambda found: tried.extend(try_all(found)))
        except EdgeAgentError as error:
            # where it lay for a moment helps nobody
            raise type(error)(str(error).replace(f"{file.parent}/", "")) from None
        trials = [line for one in tried for line in ([one.refused] if one.refused else
                                                     [f"{one.name}: {one.notes[0]}", *one.notes[1:]])]  # fmt: skip
        manifest = located.manifest
        reasons = located.why.replace(f"{file.parent}/", "").split("; ")
        return Added(manifest.name, manifest.task, manifest.family, reasons, trials)

    def roll_back(self, ask: Ask) -> Done:
        """Bring the version before again."""
        with self._alone():
            made = rollback(_name(ask)).manifest
            self._page.now.swap.look.set()
        return Done(f"version {made.version} serves again")

    def pull(self, ask: Ask) -> Done:
        """Fetch what the catalogue names."""
        with self._alone():
            made = catalogue.pull(_name(ask)).manifest
        return Done(f"{made.name}: all files are here, and verified")

    def remove(self, ask: Ask) -> Done:
        """Delete one that serves nobody."""
        name = _name(ask)
        if serves := self._serving().get(name):
            raise Refused(409, f"it serves: {'; '.join(one.partition(':')[0] for one in serves)}")
        with self._alone():
            return Done(f"{remove(name) / 1e6:.1f} MB freed")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Refused while another change is under way."""
        if not self._changing.acquire(blocking=False):
            raise Refused(409, "another model is being changed; try again when that is done")
        try:
            yield
        finally:
            self._changing.release()


def _name(ask: Ask) -> str:
    """A model of the registry. Refused: no paths."""
    name = ask.path("name")
    if name not in {row["name"] for row in catalogue.listing()}:
        raise Refused(404, f"there is no model {name[:64]!r}")
    return name


def _text(path: Path) -> str:
    try:
        return read_regular(path, MOST_CARD).decode(errors="replace")
    except OSError:
        return ""


def _variants(made: Manifest) -> list[Variant]:
    """Each network with the fastest of its laps on this device."""
    found = []
    for row in made.networks():
        races = remembered(row.key(), "races")
        laps = [lap for race in races[:1] for lap in race.result.figures.get("rows", []) if lap["key"] == row.key()]
        best = min(laps, key=lambda lap: float(lap["median_ms"]), default=None)
        ms, threads = (float(best["median_ms"]), int(best["threads"])) if best else (None, 0)
        found.append(Variant(row.title(), row.precision, row.bytes, ms, threads))
    return found


async def received(request: Request, path: Path) -> None:
    """Write a request's body to a file, as far as it may be large and the disk has room. Refused, OSError."""
    size, free = int(request.headers.get("content-length") or 0), shutil.disk_usage(path.parent).free
    most = min(MOST_FILE, free - SPARE)
    why = "a model has at most 1 GB" if most == MOST_FILE else f"the disk has room for {max(0, most) // 10**6} MB"
    if size > most:
        raise Refused(413, why, {"Connection": "close"})
    got, parts = 0, aiter(request.stream())
    with path.open("wb") as file:
        while True:
            part = None
            with anyio.move_on_after(SILENT_S):
                part = await anext(parts, b"")
                if not part:
                    return
            if part is None:
                raise Refused(408, f"nothing came for {SILENT_S:.0f} s", {"Connection": "close"})
            got += len(part)
            if got > most:
                raise Refused(413, why, {"Connection": "close"})
            await run_in_threadpool(file.write, part)


def calls(page: Page) -> list[Call]:
    """Those of models."""
    models, one = Models(page), "/api/v1/models/{name}"
    query = {"file": "its name, .onnx or .tflite", "name": "the model's name; none: the file's"}
    return [
        Call("GET", "/api/v1/models", "viewer", "The models, and what serves.", models.all, list[Model]),
        Call("GET", one, "viewer", "The report card of a model.", models.report, Report),
        Call("GET", f"{one}/worst/{{picture}}", "operator", "A picture that a model did badly on.", models.worst,
             media="image/jpeg"),
        Call("POST", "/api/v1/models", "admin", "Add a file (the body): read, proved, or refused with the reason.",
             models.add, Added, query=query),
        Call("POST", f"{one}/rollback", "admin", "Have the version before serve again.", models.roll_back, Done),
        Call("POST", f"{one}/pull", "admin", "Fetch a model of the catalogue.", models.pull, Done),
        Call("DELETE", one, "admin", "Delete a model that was added or fetched.", models.remove, Done),
    ]  # fmt: skip
