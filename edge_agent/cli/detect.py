"""The verb detect: pictures, folders, films and cameras -> what is seen in them."""

from __future__ import annotations

import argparse
import glob
import itertools
import queue
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from edge_agent.cli.say import note, one_line, print_json, steps
from edge_agent.errors import EdgeAgentError, InputError, UsageError
from edge_agent.redact import redact
from edge_agent.types import Detections, Finding, Frame, Task
from edge_agent.uri import Uri

ADDRESS = re.compile(r"(https?|rtsps?)://|(camera|pipe):|/dev/video\d", re.IGNORECASE)
"""how what is no file begins"""


@dataclass(frozen=True, slots=True)
class _Place:
    """Something to look at."""

    name: str
    """as it may be shown"""
    number: int = 0
    """among all that were given"""
    path: Path | None = None
    """of a picture or a film"""
    film: bool = False
    address: str = ""
    """of a camera, or of a picture on the web"""

    def title(self, frame: Frame) -> str:
        """What the frame is called: a picture as it was given, and of a film with its number."""
        return f"{self.name}#{frame.name.rpartition('#')[2]}" if self.film else self.name


class _Out:
    """What has been seen so far, said and drawn."""

    def __init__(
        self, args: argparse.Namespace, task: Task, show: Callable[[Finding], tuple[dict[str, object], str]]
    ) -> None:
        self.args, self.task, self.show = args, task, show
        self.save: Callable[[_Place, Frame], Path] | None = None
        self.failed = 0
        # lines on a terminal are progress enough
        self.progress = steps() if not sys.stdout.isatty() else lambda what, done, total: None
        self.frames: Counter[_Place] = Counter()

    def see(self, place: _Place, frame: Frame) -> None:
        """Answer one frame."""
        try:
            (found,) = self.task(frame)
        except InputError as error:
            self.bad(place.name, error)
            return
        assert isinstance(found, Finding)
        self.frames[place] += 1
        self._say(place, frame, found)
        if self.save:
            _save(self.save(place, frame), frame, found)

    def bad(self, name: str, error: Exception) -> None:
        """One that cannot be read or answered: the others go on."""
        self.failed += 1
        print(f"edge-agent detect: {redact(name)}: {one_line(error)}", file=sys.stderr, flush=True)

    def _say(self, place: _Place, frame: Frame, found: Finding) -> None:
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
    from edge_agent.cli.models import models_of
    from edge_agent.paths import home
    from edge_agent.tasks import TASKS, found_at, make_task

    options = {key: str(getattr(args, key)) for key in ("score", "iou", "classes") if getattr(args, key) is not None}
    models = models_of(args, once=True)
    named = "recognise" if models.serve(args.model).manifest.task == "recognise" else "detect"
    task = make_task(Uri(named, args.model, options), models.serve, home())
    if named == "recognise" and args.save:
        raise UsageError(f"--save {args.save}: {args.model} labels whole pictures, there are no boxes to draw")
    out, places = _Out(args, task, found_at(TASKS[named].show)), list[_Place]()
    for text in _given(args.image):
        try:
            places += [replace(place, number=len(places) + i) for i, place in enumerate(_places(text))]
        except InputError as error:
            out.bad(text, error)
    if args.save and places:
        out.save = _saver(args.save, places)
    stop = threading.Event()
    if args.seconds is not None:
        timer = threading.Timer(args.seconds, stop.set)
        timer.daemon = True
        timer.start()
    live = [place for place in places if not _finite(place, len(places), out, stop)]
    if live and not stop.is_set():
        _cameras(live, out, stop)
    return 1 if out.failed else 0


def _given(texts: list[str]) -> Iterator[str]:
    """What was given, for - the lines of stdin."""
    for text in texts:
        if text != "-":
            yield text
            continue
        for line in sys.stdin:
            if line.strip():
                yield line.rstrip("\r\n")


def _places(text: str) -> Iterator[_Place]:
    """One of the arguments: a file, each picture and film of a folder or glob, or an address."""
    from edge_agent.sources.files import PICTURES, VIDEOS, is_video

    path = Path(text)
    if ADDRESS.match(text) and not path.is_file():
        yield _Place(redact(text), address=text)
        return
    found = [path]
    if path.is_dir():
        found = sorted(one for one in path.iterdir() if one.suffix.lower() in PICTURES | VIDEOS and one.is_file())
        if not found:
            raise InputError("no picture or video in this folder; for those of its folders give a glob such as 'x/**'")
    elif not path.exists() and glob.has_magic(text):
        names = (Path(name) for name in glob.iglob(text, recursive=True))  # noqa: PTH207, Path.glob takes no absolute pattern
        found = sorted(one for one in names if one.suffix.lower() in PICTURES | VIDEOS and one.is_file())
        if not found:
            raise InputError("no picture or video matches")
    for one in found:
        yield _Place(str(one), path=one, film=one.is_file() and is_video(one))


def _finite(place: _Place, total: int, out: _Out, stop: threading.Event) -> bool:
    """Answer a picture or a film; False for a camera, which goes on."""
    from edge_agent.errors import SourceError
    from edge_agent.pictures.read import read_picture
    from edge_agent.sources import open_source

    if stop.is_set():
        return True
    try:
        if place.address:
            frame = _one(place.address)
            if frame is None:
                return False
            out.see(place, frame)
        elif place.film:
            for number, item in enumerate(open_source(Uri("files", str(place.path))).run(stop)):
                if isinstance(item, Frame):
                    out.see(place, item)
                    out.progress(f"{place.name}, frame {number}", place.number, total)
                if out.args.frames and out.frames[place] >= out.args.frames:
                    break
        else:
            assert place.path is not None
            out.see(place, read_picture(place.path))
    except (InputError, SourceError) as error:
        out.bad(place.name, error)
    out.progress("detect", place.number + 1, total)
    return True


def _one(address: str) -> Frame | None:
    """The picture that an address gives; None for a camera."""
    from edge_agent.sources.mjpeg import single
    from edge_agent.uri import parse_uri

    uri = parse_uri(address)
    return single(uri) if uri.scheme in ("http", "https") else None


def _cameras(places: list[_Place], out: _Out, stop: threading.Event) -> None:
    """Answer the newest frames of all cameras at once, until it is enough, or Ctrl-C."""
    from edge_agent.cli.device import stop_on_signals
    from edge_agent.sources import open_source
    from edge_agent.uri import parse_uri

    stop_on_signals(stop)
    opened = [(place, open_source(parse_uri(place.address))) for place in places]
    come: queue.Queue[tuple[_Place, Frame | Exception | None]] = queue.Queue()
    waiting: dict[_Place, Frame] = {}
    lock = threading.Lock()

    def pump(place: _Place, run: Callable[[threading.Event], Iterator[object]]) -> None:
        end: Exception | None = None
        try:
            for item in run(stop):
                if isinstance(item, Frame):
                    with lock:
                        fresh = place not in waiting
                        waiting[place] = item
                    if fresh:
                        come.put((place, item))
                elif item:
                    state = f"{getattr(item, 'condition', '')}: {getattr(item, 'why', '')}".rstrip(": ")
                    note(f"{place.name}: {state}")
        except EdgeAgentError as error:
            end = error
        come.put((place, end))

    for place, source in opened:
        threading.Thread(target=pump, args=(place, source.run), daemon=True, name="camera").start()
    left = set(places)
    while left and not stop.is_set():
        try:
            place, item = come.get(timeout=0.2)
        except queue.Empty:
            continue
        if isinstance(item, Frame):
            with lock:
                item = waiting.pop(place)
            if place in left:
                out.see(place, item)
            if out.args.frames and out.frames[place] >= out.args.frames:
                left.discard(place)
        else:
            left.discard(place)
            if item is not None:
                out.bad(place.name, item)
    stop.set()
    for place in places:
        if not out.frames[place]:
            out.bad(place.name, InputError("gave no frame"))


def _saver(target: str, places: list[_Place]) -> Callable[[_Place, Frame], Path]:
    """Where each picture goes: the file itself for one picture, a folder for several (or when it is one).

    In a folder a picture gets a number where its name is taken: by another one, or by a file that we did not draw.
    UsageError where one file is to hold several, or the picture that was given.
    """
    path = Path(target)
    single = path.suffix.lower() in (".jpg", ".jpeg") and not path.is_dir()
    if single and (len(places) > 1 or places[0].film or places[0].address):
        raise UsageError(f"--save {target}: one file does not hold several pictures; give a folder")
    if not single and path.suffix and not path.is_dir():
        raise UsageError(f"--save {target}: give a name that ends in .jpg, or a folder")
    given = {place.path.resolve() for place in places if place.path is not None}
    if single and path.resolve() in given:
        raise UsageError(f"--save {target}: that is the picture itself; give another name")
    from edge_agent.pictures.draw import is_drawn

    taken: set[Path] = set()
    count: Counter[_Place] = Counter()

    def where(place: _Place, frame: Frame) -> Path:
        if single:
            return path
        count[place] += 1
        stem = place.path.stem if place.path else re.sub(r"[^\w.-]+", "_", place.name.partition("://")[2] or place.name)
        if place.film or place.address:
            stem += f"-{count[place] - 1:06}"
        names = (path / f"{stem}{f'-{number}' if number > 1 else ''}.jpg" for number in itertools.count(1))
        free = next(name for name in names if name not in taken and (not name.exists() or is_drawn(name)))
        taken.add(free)
        return free

    return where


def _save(path: Path, frame: Frame, found: Finding) -> None:
    from edge_agent.pictures.draw import draw, save_jpeg

    assert isinstance(found.what, Detections)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--save {path}: the folder cannot be made ({error.strerror})") from None
    save_jpeg(draw(frame.image, found.what), path)
