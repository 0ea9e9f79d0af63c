"""The verb teach: pictures of each state -> a model that the task `state` serves."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edge_agent.cli.say import one_line, print_json
from edge_agent.errors import EdgeAgentError, InputError, UsageError

if TYPE_CHECKING:
    from edge_agent.cli.places import Place
    from edge_agent.serving.teach import Example, Taught
    from edge_agent.tasks.state.features import Region
    from edge_agent.types import Frame

OF_FILM = 100
"""frames of a film at most, spread evenly over it"""
EXAMPLE = "--examples open='open/*.jpg' shut='shut/*.jpg'"


def options(to: argparse.ArgumentParser) -> None:
    """The verb's options."""
    to.add_argument("name", help="what the model is to be called: the task is then state:NAME")
    given = "pictures of a state: picture, film, folder or 'glob'; several of one state: open=a open=b"
    to.add_argument("--examples", nargs="+", required=True, metavar="STATE=PICTURES", help=given)
    region = "the part that shows it: left,top,right,bottom, in fractions of the picture or in pixels (default: all)"
    to.add_argument("--region", metavar="X0,Y0,X1,Y1", help=region)
    to.add_argument("--model", metavar="NAME", help="the detector whose features are used (default: edge-yolo)")
    to.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")


def teach(args: argparse.Namespace) -> int:
    """Teach it, and say how well it knows what it has not seen; 1 where a picture cannot be read, or the states cannot
    be told apart.
    """
    from edge_agent.serving.teach import BASE
    from edge_agent.serving.teach import teach as learn

    states = [_state(text) for text in args.examples]
    region = _region(args.region)
    bad: list[str] = []
    places = [(label, place) for label, where in states for place in _places(where, bad)]
    try:
        told = learn(args.name, _examples(places, bad), region, args.model or BASE)
    finally:
        for line in bad:
            print(f"edge-agent teach: {line}", file=sys.stderr)
    if args.json:
        print_json({**_row(told), "unreadable": bad})
    else:
        print("\n".join(_lines(told)))
    return 1 if bad else 0


def _state(text: str) -> tuple[str, str]:
    """A state's name, and where its pictures are."""
    label, sign, where = text.partition("=")
    if not sign or not label or not where or len(label) > 64 or not label.isprintable():
        raise UsageError(f'--examples "{text}": write STATE=PICTURES, as in {EXAMPLE}')
    return label, where


def _places(where: str, bad: list[str]) -> list[Place]:
    """The pictures and films of one argument; why there is none, goes into `bad`."""
    from edge_agent.cli.places import places_of

    try:
        found = list(places_of(where))
    except EdgeAgentError as error:
        bad.append(f"{where}: {one_line(error)}")
        return []
    if any(place.address for place in found):
        raise UsageError(f"--examples {where}: give pictures and films; of a camera keep some first")
    return found


def _examples(places: list[tuple[str, Place]], bad: list[str]) -> Iterator[Example]:
    """The pictures, one after the other; those that cannot be read go into `bad`."""
    from edge_agent.serving.teach import Example

    for label, place in places:
        try:
            for frame in _frames(place):
                yield Example(label, place.title(frame), frame.image)
        except (InputError, EdgeAgentError) as error:
            bad.append(f"{place.name}: {one_line(error)}")


def _frames(place: Place) -> list[Frame]:
    """A picture, or OF_FILM frames of a film at most: once there are twice as many, every other one goes."""
    import threading

    from edge_agent.pictures.read import read_picture
    from edge_agent.sources import open_source
    from edge_agent.types import Frame
    from edge_agent.uri import Uri

    assert place.path is not None
    if not place.film:
        return [read_picture(place.path)]
    kept, stride = list[Frame](), 1
    pictures = (item for item in open_source(Uri("files", str(place.path))).run(threading.Event()))
    for number, item in enumerate(item for item in pictures if isinstance(item, Frame)):
        if number % stride == 0:
            kept.append(item)
        if len(kept) == 2 * OF_FILM:
            kept, stride = kept[::2], 2 * stride
    return kept


def _region(text: str | None) -> Region:
    """The numbers of --region; all of the picture where it is left out."""
    from edge_agent.tasks.state.features import WHOLE

    if text is None:
        return WHOLE
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(math.isfinite(number) for number in numbers):
        raise UsageError(f"--region {text}: give four numbers, left,top,right,bottom, as in 0.2,0.1,0.5,0.4")
    left, top, right, bottom = numbers
    if min(left, top) < 0 or left >= right or top >= bottom:
        raise UsageError(f"--region {text}: left lies before right, top above bottom, and none below 0")
    return left, top, right, bottom


def _row(told: Taught) -> dict[str, object]:
    import msgspec

    row: dict[str, object] = msgspec.to_builtins(told)
    return {**row, "task": f"state:{told.name}"}


def _lines(told: Taught) -> list[str]:
    """For people."""
    shown = ", ".join(f"{label} {count}" for label, count in told.pictures.items())
    simpler = ", ".join(f"{key} {many}" for key, many in told.baselines.items())
    return [
        f"{told.name}: {told.of} pictures ({shown})",
        f"held out: {told.right} of {told.of} right ({told.low:.2f} to {told.high:.2f}); guessing {told.guess:.2f}; "
        f"simpler means: {simpler}",
        *told.notes,
        f"features {told.read_s:.2f} s, head {told.fit_s:.2f} s",
        f'added as version {told.version}: write tasks = ["state:{told.name}"] into a pipeline of this camera, or try '
        f"edge-agent detect {told.name} PICTURE",
    ]
