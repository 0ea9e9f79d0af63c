"""The house itself: which way imports run, what is light, and that published things match the code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import pytest

from edge_agent import events
from edge_agent.config import RESERVED
from edge_agent.events import AnyEvent
from edge_agent.link import topics
from tests.conftest import ROOT

PACKAGE = ROOT / "edge_agent"
STOREYS = {
    "doors": "cli workshop __main__",
    "service": "agent consumer ui",
    "serving": "serving",
    "gate": "gate",
    "rooms": "sources tasks inspect link notify rules recorder homeassistant fleet governor accuracy",
    "walk": "walk outbox archive registry samples backends",
    "craft": "families graphs pictures device figures",
    "floor": "__init__ got types events errors config manifest toml uri paths files held programs redact personal",
}
"""from top to bottom; an import goes to the same storey or to one below"""
STOREY = {room: -at for at, rooms in enumerate(STOREYS.values()) for room in rooms.split()}
SIBLINGS = {*STOREYS["rooms"].split(), *STOREYS["service"].split()}
"""rooms that never import each other, though they are on one storey"""
FILES = sorted(PACKAGE.rglob("*.py"))
ENTRY = {
    "cv2": {"pictures"},
    "onnxruntime": {"backends/onnx.py", "workshop"},
    "ai_edge_litert": {"backends/tflite.py", "workshop"},
    "tflite_runtime": {"backends/tflite.py"},
    "ctranslate2": {"backends/ctranslate2.py"},
    "pocketsphinx": {"tasks/transcribe/sphinx.py"},
    "simplejpeg": {"pictures/read.py"},
    "cryptography": {"link/signing.py", "link/request.py", "fleet/keys.py"},
    "tuf": {"fleet"},
    "securesystemslib": {"fleet"},
    "bsdiff4": {"fleet/forms.py"},
    "paho": {"link/wire.py"},
    "starlette": {"ui"},
    "uvicorn": {"ui/server.py"},
    "prometheus_client": {"ui/metrics.py"},
    "tomlkit": {"ui/config_text.py"},
    "apprise": {"notify/child.py"},
    "sounddevice": {"sources/microphone.py"},
    "pymicro_wakeword": {"tasks/wake/wake.py"},
    "serial": {"sources/serial.py"},
    "pg8000": {"consumer/postgres.py"},
    "duckdb": {"consumer/duck.py"},
    "nats": {"consumer/nats.py"},
    "torch": {"workshop/train"},
    "onnx": {"workshop"},
    "onnx_ir": {"workshop"},
    "tokenizers": {"tasks/text/subwords.py", "workshop"},
}


def name_of(path: Path) -> str:
    """The dotted name of one of our files."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


NAMES = {name_of(path): path for path in FILES}


@cache
def imports(path: Path) -> set[str]:
    """Dotted names of every module that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@cache
def ours(path: Path) -> set[str]:
    """Those of our files that a file imports."""
    every = imports(path)
    inside = {name.rpartition(".")[0] for name in every & NAMES.keys()}
    return {name for name in every & NAMES.keys() if name not in inside or _names_more(every, name)} - {name_of(path)}


def _names_more(every: set[str], package: str) -> bool:
    """Whether something of a package itself is imported, too, and not only files in it."""
    return any(name.rpartition(".")[0] == package and name not in NAMES for name in every)


def drawing() -> str:
    """The storeys and their rooms from top to bottom, each with what stands at its head."""
    lines = []
    for number, (storey, rooms) in zip(range(len(STOREYS), 0, -1), STOREYS.items(), strict=True):
        named = [(f"{room}/", said(PACKAGE / room)) for room in rooms.split() if (PACKAGE / room).is_dir()]
        if storey == "floor":
            named = [(", ".join(rooms.split()[1:]), "")]
        for at, (room, words) in enumerate(named):
            lines.append(f"{f'{number} {storey}' if not at else '':12}{room:10} {words}".rstrip())
    return "\n".join(lines)


def said(folder: Path) -> str:
    """The first sentence of a package's docstring."""
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    return text.partition("\n")[0].rstrip(".")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_map_of_the_house_is_that_of_the_tree(page: str) -> None:
    assert drawing() in (ROOT / page).read_text(), "copy what `python -m tests.test_house` prints"


def room_of(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_down(path: Path) -> None:
    room = room_of(name_of(path))
    for name in ours(path):
        other = room_of(name)
        assert STOREY[other] <= STOREY[room], f"{name} is on a storey above"
        beside = other != room and STOREY[other] == STOREY[room]
        assert not (beside and room in SIBLINGS), f"{name}: siblings never import each other"
        assert (other != "cli" or room in ("cli", "__main__")) and (other != "workshop" or room in ("workshop", "cli"))


def test_no_circle_of_imports() -> None:
    left = {name: ours(path) for name, path in NAMES.items()}
    rooms: dict[str, set[str]] = {}
    for name, others in left.items():
        rooms.setdefault(room_of(name), set()).update(map(room_of, others))
    for graph in (left, {room: others - {room} for room, others in rooms.items()}):
        while free := {name for name, others in graph.items() if not others & graph.keys()}:
            for name in free:
                del graph[name]
        assert not graph, f"in or above a circle: {sorted(graph)}"


WALL = 300
LONG_FILES: dict[str, str] = {
    "backends/onnx.py": "all that is said to one runtime",
    "link/link.py": "the protocol from connect to close, read top to bottom",
    "manifest.py": "the manifest, field by field with its unit",
}
"""files above WALL lines -> why; the list may only shrink"""
LONG_FUNCTIONS: dict[str, str] = {}
"""functions above 50 lines -> why; the list may only shrink"""
BRANCHED = 16
"""blocks whose cyclomatic complexity is above 10; the number may only shrink"""


def test_files_and_functions_have_walls() -> None:
    files, functions = set(), set()
    for path in FILES:
        text, name = path.read_text(), path.relative_to(PACKAGE).as_posix()
        files |= {name} if len(text.splitlines()) > WALL else set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 50:
                functions.add(f"{name}:{node.name}")
    assert files == set(LONG_FILES), "split a file that has become too long; take one that is no more off the list"
    assert functions == set(LONG_FUNCTIONS), "as above, of functions"


def test_few_blocks_branch_much() -> None:
    complexity = pytest.importorskip("radon.complexity", reason="the extra [dev] is not installed")
    found = {
        f"{name_of(path)}:{block.name}": block.complexity
        for path in FILES
        for block in complexity.cc_visit(path.read_text())
        if block.complexity > 10
    }
    assert not {name: branches for name, branches in found.items() if branches > 20}
    assert len(found) <= BRANCHED


@pytest.mark.parametrize("library", sorted(ENTRY))
def test_a_heavy_library_enters_through_one_door(library: str) -> None:
    for path in PACKAGE.rglob("*.py"):
        if any(name.split(".")[0] == library for name in imports(path)):
            where = path.relative_to(PACKAGE).as_posix()
            assert any(where == door or where.startswith(f"{door}/") for door in ENTRY[library]), where


def test_help_and_package_load_nothing_heavy() -> None:
    code = (
        "import sys, edge_agent.cli as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted(set(sys.modules) & {'numpy', 'cv2', 'onnxruntime', 'ai_edge_litert', 'paho', 'torch'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("module", "without"), [("consumer.listen", {"numpy"}), ("agent.agent", {"numpy", "paho"})])
def test_what_is_not_needed_is_not_loaded(module: str, without: set[str]) -> None:
    code = f"import sys, edge_agent.{module}; print(*sorted({without} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_one_file_spells_the_topics() -> None:
    topic = re.compile(r"/(events|ack)$|(^|/)(cmd|reply)/|^/state$")
    for path in set(FILES) - {Path(topics.__file__)}:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
        texts = [n.value for n in nodes if isinstance(n, ast.Constant) and n not in docstrings]
        assert not [text for text in texts if isinstance(text, str) and topic.search(text)], path
    own = (topics.STATUS, topics.HEALTH, topics.ACK, topics.COMMANDS, topics.PROFILE, topics.RULES)
    tails = (*own, topics.reply("ping"), topics.events("agent"))
    assert {tail.partition("/")[0] for tail in tails} == set(RESERVED), "no pipeline may take one of the device's own"


def test_the_published_schema_is_the_code_s() -> None:
    published = (ROOT / "deploy" / "event.schema.json").read_text()
    assert published == events.schema_text(), "run: python -m edge_agent.events > deploy/event.schema.json"


NOT_CAPTURED = {
    "Event": "id device pipeline at spent_ms",
    "Pictured": "snapshot clip",
    "ModelRef": "name version sha256 why",
    "Heard": "engine language name",
    "Read": "engine name",
    "Detection": "label object",
    "DetectionsEvent": "name",
    "ScoresEvent": "name label scores",
    "Span": "label",
    "Passage": "source",
    "SimilarEvent": "store",
    "TopicEvent": "since",
    "SummaryEvent": "since",
    "AnomalyEvent": "name parts",
    "GapEvent": "why",
    "ObjectEvent": "phase object label since zones entered left loiters dwell why",
    "CrossingEvent": "line direction object label",
    "OpinionEvent": "about by verdict",
    "RuleEvent": "rule phase because why profile since",
}
"""fields of events that hold text which nobody said, wrote or showed: names, labels of a model, reasons of ours"""


def test_each_field_of_an_event_that_says_what_was_captured_is_marked_so() -> None:
    """So that `text = false` and `[privacy]` hold for it; see got.CAPTURED."""
    for kind in {struct for event in events.EVENTS.values() for struct in _structs(event)}:
        hints = get_type_hints(kind, include_extras=True)
        plain = {name for struct in kind.__mro__ for name in NOT_CAPTURED.get(struct.__name__, "").split()}
        for field in msgspec.structs.fields(kind):
            if str in _parts(field.type) and not events.is_captured(hints[field.name]):
                told = "write Words as its type, or name it in NOT_CAPTURED if nobody's words can stand in it"
                assert field.name in plain, f"{kind.__name__}.{field.name}: {told}"


def _parts(hint: object) -> set[object]:
    """All types in a type."""
    return {hint}.union(*map(_parts, get_args(hint)))


def _structs(kind: type[msgspec.Struct]) -> set[type[msgspec.Struct]]:
    """A struct and those that stand in it."""
    inside = {part for field in msgspec.structs.fields(kind) for part in _parts(field.type)}
    found = {part for part in inside if isinstance(part, type) and issubclass(part, msgspec.Struct)}
    return {kind}.union(*map(_structs, found))


def test_every_kind_of_event_survives_its_json() -> None:
    common = {"pipeline": "p", "at": "2026-01-01T00:00:00Z", "id": "d/1/2", "epoch": 1, "seq": 2, "device": "d"}
    for body in (
        {
            "kind": "detections",
            "width": 1,
            "height": 2,
            "detections": [{"label": "a", "class_id": 1, "score": 0.5, "box": [0, 1, 2, 3]}],
        },
        {"kind": "text", "text": "a"},
        {"kind": "scores", "text": "a", "label": "x", "score": 0.5, "scores": {"x": 0.5, "y": 0.5}},
        {"kind": "spans", "text": "a b", "spans": [{"label": "x", "text": "b", "start": 2, "end": 3, "score": 0.5}]},
        {"kind": "anomaly", "error": 9.5, "limit": 12.0, "unusual": False},
        {
            "kind": "object",
            "phase": "end",
            "object": "a-1",
            "label": "a",
            "class_id": 1,
            "score": 0.5,
            "box": [0, 1, 2, 3],
            "width": 1,
            "height": 2,
            "since": "2026-01-01T00:00:00Z",
            "seconds": 1.5,
            "path": [[0.0, 1.0]],
            "zones": ["z"],
            "dwell": {"z": 1.0},
            "stationary": True,
            "why": "w",
        },
        {
            "kind": "crossing",
            "line": "l",
            "direction": "in",
            "object": "a-1",
            "label": "a",
            "score": 0.5,
            "box": [0, 1, 2, 3],
            "width": 1,
            "height": 2,
        },
        {
            "kind": "rule",
            "rule": "r",
            "phase": "on",
            "because": ["d/1/1"],
            "why": "w",
            "profile": "night",
            "since": "2026-01-01T00:00:00Z",
        },
        {"kind": "gap", "first": 1, "last": 2, "count": 2, "why": "w"},
    ):
        event = msgspec.json.decode(msgspec.json.encode({**common, **body}), type=AnyEvent)
        again = msgspec.json.decode(msgspec.json.encode(event))
        assert {key: again[key] for key in {**common, **body}} == {**common, **body}


def test_no_file_names_this_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    pattern = re.compile(re.escape(str(ROOT)) + "|/" + "root/")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".sh", ".service", "") and path.is_file():
            assert not pattern.search(path.read_text(errors="replace")), name


if __name__ == "__main__":
    print(drawing())
