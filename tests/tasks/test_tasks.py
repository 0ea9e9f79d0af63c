"""The table of tasks, and what may follow what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from edge_agent.errors import ConfigError
from edge_agent.manifest import Input, Manifest, Served
from edge_agent.tasks import ASIDE, PLAIN, TASKS, found_at, make_task
from edge_agent.tasks.chain import check_chain
from edge_agent.tasks.detect.detect import Detector
from edge_agent.types import Audio, Finding, Frame, Net, TensorSpec, Text
from edge_agent.uri import parse_uri
from edge_agent.workshop.evaluate import verb
from tests.coco import serve_net

NET = Net(lambda tensors: {}, (TensorSpec("images", (1, 3, 64, 64), "float32"),), (), "a lambda")


def serve(name: str) -> Served:
    served = serve_net(NET, Input(64, 64), "yolox", ["person", "car"])
    asked.append(name)
    return served


asked: list[str] = []


def test_a_task_is_made_on_the_model_it_names(tmp_path: Path) -> None:
    asked.clear()
    task = make_task(parse_uri("detect:yolox-nano?score=0.7&classes=car"), serve, tmp_path)
    assert isinstance(task, Detector) and task.score == 0.7 and asked == ["yolox-nano"]
    make_task(parse_uri("detect:"), serve, tmp_path)
    assert asked == ["yolox-nano", "detector"]


def test_a_task_without_a_model_of_its_own_has_to_name_one(tmp_path: Path) -> None:
    assert {name for name, row in TASKS.items() if row.purpose and not row.default} == {"recognise", "anomaly", "state"}
    with pytest.raises(ConfigError, match='"recognise:": which model\\? write "recognise:MODEL"'):
        make_task(parse_uri("recognise:"), serve, tmp_path)


def test_each_purpose_of_a_model_has_a_task() -> None:
    assert set(PLAIN) | set(ASIDE) == set(get_args(get_type_hints(Manifest)["task"]))
    # of what gives samples and no findings, `evaluate` measures speech alone
    finds = {row.purpose for row in TASKS.values() if row.purpose and row.gives not in (Text, Audio)}
    assert set(verb.TASKS) == {*finds, "transcribe"}


@pytest.mark.parametrize("name", TASKS)
def test_what_a_row_names_is_there(name: str) -> None:
    row = TASKS[name]
    places = {
        key: place for key, place in msgspec.structs.asdict(row).items() if isinstance(place, str) and ":" in place
    }
    assert all(callable(found_at(place)) for place in places.values())
    # what gives sound to the task behind it has nothing to show, and the workshop measures none
    of_model = {"prove", "compare"} if row.gives is Audio else {"prove", "compare", "measure", "show"}
    assert set(places) == {"make", *(of_model if row.purpose else {"show"} if row.on else ())}
    assert bool(row.measured) == bool(row.measure)


def test_an_unknown_task_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'unknown task "detct"; did you mean "detect"\?'):
        make_task(parse_uri("detct:x"), serve, tmp_path)
    with pytest.raises(ConfigError, match="known are detect, embed, classify"):
        make_task(parse_uri("zzz:x"), serve, tmp_path)


class Counter:
    """Somebody else's task: counts what it sees."""

    takes: tuple[type, ...] = (Frame, Finding)

    def __init__(self, uri: Any, model: Served | None, home: Path) -> None:
        self.model, self.home = model, home

    def __call__(self, item: Any) -> Iterator[Finding]:
        yield from ()


class Cropper(Counter):
    takes: tuple[type, ...] = (Finding,)
    gives = Frame


class Reader(Counter):
    takes: tuple[type, ...] = (Text,)


def test_somebody_elses_task_is_imported(tmp_path: Path) -> None:
    task = make_task(parse_uri(f"{__name__}:Counter"), serve, tmp_path)
    assert isinstance(task, Counter) and task.model is None and task.home == tmp_path
    task = make_task(parse_uri(f"{__name__}:Counter:yolox-nano"), serve, tmp_path)
    assert isinstance(task, Counter) and task.model is not None
    for wrong in ("no.such.module:attr:x", f"{__name__}:Missing:x"):
        with pytest.raises(ConfigError, match=r"cannot be imported \(.*\); is it installed\?"):
            make_task(parse_uri(wrong), serve, tmp_path)


def test_each_task_must_take_what_comes_to_it(tmp_path: Path) -> None:
    detect = make_task(parse_uri("detect:x"), serve, tmp_path)
    counter, cropper, reader = (kind(None, None, tmp_path) for kind in (Counter, Cropper, Reader))
    check_chain(Frame, [])
    check_chain(Frame, [("detect:x", detect), ("count", counter)])
    check_chain(Frame, [("detect:x", detect), ("crop", cropper), ("detect:y", detect)])
    with pytest.raises(ConfigError, match='task "crop" gives pictures, which no event says; put a task behind it'):
        check_chain(Frame, [("detect:x", detect), ("crop", cropper)])
    with pytest.raises(ConfigError, match='task "detect:x" takes pictures, but text comes to it'):
        check_chain(Text, [("detect:x", detect)])
    with pytest.raises(ConfigError, match='task "detect:y" takes pictures, but what a task before it found comes'):
        check_chain(Frame, [("detect:x", detect), ("detect:y", detect)])
    with pytest.raises(ConfigError, match='task "read" takes text, but pictures come'):
        check_chain(Frame, [("read", reader)])
