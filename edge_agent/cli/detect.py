"""The verb detect: pictures, folders, films and cameras -> what is seen in them."""

from __future__ import annotations

import argparse
import queue
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from edge_agent.cli.drawn import save, saver
from edge_agent.cli.places import Place, given, places_of
from edge_agent.cli.say import note, one_line, print_json, steps
from edge_agent.errors import EdgeAgentError, InputError, UsageError
from edge_agent.redact import redact
from edge_agent.types import Finding, Frame, Sample, Task
from edge_agent.uri import Uri
from edge_agent.walk.pipeline import walk

LABELS = ("recognise", "state")
"""tasks that label whole pictures"""


class _Out:
    """What has been seen so far, said and drawn."""

    def __init__(
        self, args: argparse.Namespace, task: Task, show: Callable[[Finding], tuple[dict[str, object], str]]
    ) -> None:
        self.args, self.task, self.show = args, task, show
        self.save: Callable[[Place, Frame], Path] | None = None
        self.failed = 0
        # lines on a terminal are progress enough
        self.progress = steps() if not sys.stdout.isatty() else lambda what, done, total: None
        self.frames: Counter[Place] = Counter()
        self.tracks: dict[Place, Task] = {}

    def see(self, place: Place, frame: Frame) -> None:
        """Answer one frame."""
        try:
            (found,) = self._found(place, frame)
        except InputError as error:
            self.bad(place.name, error)
            return
        assert isinstance(found, Finding)
        self.frames[place] += 1
        self._say(place, frame, found)
        if self.save:
            save(self.save(place, frame), frame, found)

    def _found(self, place: Place, frame: Frame) -> list[Sample | Finding]:
        """What is found in one frame, and of which objects it is, where that is asked for."""
        if not self.args.track:
            return list(self.task(frame))
        if not (place.film or place.address):
            raise InputError("--track needs a film or a camera: single pictures have no clock")
        if place not in self.tracks:
            from edge_agent.tasks.track.track import track

            self.tracks[place] = track(Uri("track", ""), None, Path())
        return list(walk(frame, (self.task, self.tracks[place])))

    def enough(self, place: Place) -> bool:
        """Whether as many of its frames were answered as are asked for."""
        return bool(self.args.frames) and self.frames[place] >= self.args.frames

    def bad(self, name: str, error: Exception) -> None:
        """One that cannot be read or answered: the others go on."""
        self.failed += 1
        print(f"edge-agent detect: {redact(name)}: {one_line(error)}", file=sys.stderr, flush=True)

    def _say(self, place: Place, frame: Frame, found: Finding) -> None:
        title = place.title(frame)
        fields, words = self.show(found)
        if not self.args.json:
            print(f"{title} {frame.width}x{frame.height}: {words}", flush=True)
            return
        row: dict[str, object] = {"image": title, "width": frame.width, "height": frame.height}
        if place.address:
            row["at"] = datetime.fromtimestamp(frame.at, timezone.utc).isoformat(timespec="milliseconds")
        print_json({**row, **fields, "spent_ms": {stage: round(ms, 3) for stage, ms in found.spent_ms.items()}})


def detect(args: argparse.Namespace) -> int:
    """Find objects in pictures, films and cameras; 1 when one of them cannot be read."""
    from edge_agent.cli.signals import stop_after
    from edge_agent.tasks import TASKS, found_at

    task, named = _task(args)
    if named in LABELS and args.save:
        raise UsageError(f"--save {args.save}: {args.model} labels whole pictures, there are no boxes to draw")
    out = _Out(args, task, found_at(TASKS[named].show))
    places = _places(args.image, out)
    if args.save and places:
        out.save = saver(args.save, places)
    stop = threading.Event()
    stop_after(args.seconds, stop)
    live = [place for place in places if not _finite(place, len(places), out, stop)]
    if live and not stop.is_set():
        _cameras(live, out, stop)
    return 1 if out.failed else 0


def _places(texts: list[str], out: _Out) -> list[Place]:
    """What is to be looked at, numbered."""
    places: list[Place] = []
    for text in given(texts):
        try:
            places += [replace(place, number=len(places) + i) for i, place in enumerate(places_of(text))]
        except InputError as error:
            out.bad(text, error)
    return places


def _task(args: argparse.Namespace) -> tuple[Task, str]:
    """The task on the model that is named, and what it is called."""
    from edge_agent.cli.models import models_of
    from edge_agent.paths import home
    from edge_agent.tasks import make_task
    from edge_agent.tasks.chain import wanting

    options = {key: str(getattr(args, key)) for key in ("score", "iou", "classes") if getattr(args, key) is not None}
    models = models_of(args, once=True)
    purpose = models.serve(args.model).manifest.task
    named = purpose if purpose in LABELS else "detect"
    chain = [Uri(named, args.model, options), *([Uri("track", "")] if args.track else [])]
    if args.track and named in LABELS:
        raise UsageError(f"--track: {args.model} labels whole pictures, there are no boxes to follow")
    return make_task(wanting(chain)[0], models.serve, home()), named


def _finite(place: Place, total: int, out: _Out, stop: threading.Event) -> bool:
    """Answer a picture or a film; False for a camera, which goes on."""
    from edge_agent.errors import SourceError
    from edge_agent.pictures.read import read_picture

    if stop.is_set():
        return True
    try:
        if place.address:
            frame = _one(place.address)
            if frame is None:
                return False
            out.see(place, frame)
        elif place.film:
            _film(place, total, out, stop)
        else:
            assert place.path is not None
            out.see(place, read_picture(place.path))
    except (InputError, SourceError) as error:
        out.bad(place.name, error)
    out.progress("detect", place.number + 1, total)
    return True


def _film(place: Place, total: int, out: _Out, stop: threading.Event) -> None:
    """Answer the frames of a film, as many as are asked for. InputError, SourceError."""
    from edge_agent.sources import open_source

    opened = open_source(Uri("files", str(place.path)))
    if opened.yields is not Frame:
        raise InputError(f"gives {opened.yields.words}; give pictures, films or cameras")
    for number, item in enumerate(opened.run(stop)):
        if isinstance(item, Frame):
            out.see(place, item)
            out.progress(f"{place.name}, frame {number}", place.number, total)
        if out.enough(place):
            return


def _one(address: str) -> Frame | None:
    """The picture that an address gives; None for a camera."""
    from edge_agent.sources.mjpeg import single
    from edge_agent.uri import parse_uri

    uri = parse_uri(address)
    return single(uri) if uri.scheme in ("http", "https") else None


class _Newest:
    """The newest frame of each camera, which a thread of its own reads."""

    def __init__(self) -> None:
        self._come: queue.Queue[tuple[Place, Exception | bool]] = queue.Queue()
        self._waiting: dict[Place, Frame] = {}
        self._lock = threading.Lock()

    def pump(self, place: Place, run: Callable[[threading.Event], Iterator[object]], stop: threading.Event) -> None:
        """Read a camera to its end."""
        end: Exception | bool = False
        try:
            for item in run(stop):
                if isinstance(item, Frame):
                    self._put(place, item)
                elif item:
                    state = f"{getattr(item, 'condition', '')}: {getattr(item, 'why', '')}".rstrip(": ")
                    note(f"{place.name}: {state}")
        except EdgeAgentError as error:
            end = error
        self._come.put((place, end))

    def _put(self, place: Place, frame: Frame) -> None:
        with self._lock:
            fresh = place not in self._waiting
            self._waiting[place] = frame
        if fresh:
            self._come.put((place, True))

    def take(self, seconds: float) -> tuple[Place, Frame | Exception | None] | None:
        """A camera and its newest frame, why it ended, or None at its end; None where nothing comes in time."""
        try:
            place, what = self._come.get(timeout=seconds)
        except queue.Empty:
            return None
        if what is not True:
            return place, what or None
        with self._lock:
            return place, self._waiting.pop(place)


def _cameras(places: list[Place], out: _Out, stop: threading.Event) -> None:
    """Answer the newest frames of all cameras at once, until it is enough, or Ctrl-C."""
    from edge_agent.cli.signals import stop_on_signals
    from edge_agent.sources import open_source
    from edge_agent.uri import parse_uri

    stop_on_signals(stop)
    opened = [(place, open_source(parse_uri(place.address))) for place in places]
    newest = _Newest()
    for place, source in opened:
        threading.Thread(target=newest.pump, args=(place, source.run, stop), daemon=True, name="camera").start()
    left = set(places)
    while left and not stop.is_set():
        if (taken := newest.take(0.2)) is not None:
            _camera(*taken, left, out)
    stop.set()
    for place in places:
        if not out.frames[place]:
            out.bad(place.name, InputError("gave no frame"))


def _camera(place: Place, item: Frame | Exception | None, left: set[Place], out: _Out) -> None:
    """Answer what a camera gave; one that has ended, or gave enough, is not `left` any more."""
    if isinstance(item, Frame) and place in left:
        out.see(place, item)
    if not isinstance(item, Frame) or out.enough(place):
        left.discard(place)
    if isinstance(item, Exception):
        out.bad(place.name, item)
