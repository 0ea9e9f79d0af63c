"""The API as it describes itself, and the page of `run` when the config changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.agent.agent import Agent
from edge_agent.cli.page import about, page_of
from edge_agent.config import parse
from edge_agent.errors import ConfigError
from tests.ui.serving import ask, at_work, scene_of

from edge_agent.ui.server import Page  # isort: skip

STREAMS = {"/api/v1/live", "/api/v1/pipelines/{name}/live", "/api/v1/" + "events/stream"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Agent, Page]]:
    folder = tmp_path_factory.mktemp("api")
    with at_work(folder, scene_of(folder)) as made:
        yield made


def test_it_is_openapi(work: tuple[Agent, Page]) -> None:
    validator = pytest.importorskip("openapi_spec_validator", reason="extra [dev] is not installed")
    _, made = work
    described: dict[str, Any] = ask(made, "GET", "/api/v1/openapi.json").json
    validator.validate(described)
    assert described["openapi"] == "3.1.0"
    listed = {(verb.upper(), path) for path, verbs in described["paths"].items() for verb in verbs}
    assert listed == {(call.method, call.path) for call in made.calls}
    names = [one["operationId"] for verbs in described["paths"].values() for one in verbs.values()]
    assert len(names) == len(set(names))


def test_what_comes_back_is_of_the_type_that_is_described(work: tuple[Agent, Page]) -> None:
    _, made = work
    tried = 0
    for call in made.calls:
        if call.method == "GET" and call.gives is not None and "{" not in call.path and call.path not in STREAMS:
            got = ask(made, "GET", call.path)
            if got.status == 200 and call.path.startswith("/api/v1/"):
                msgspec.json.decode(got.body, type=call.gives)
                tried += 1
    assert tried > 12


def test_no_call_that_changes_something_is_for_viewers(work: tuple[Agent, Page]) -> None:
    _, made = work
    ours = [call for call in made.calls if call.path.startswith("/api/v1/")]
    loose = {(call.method, call.path) for call in ours if call.method != "GET" and call.role in ("", "viewer")}
    assert loose == {("POST", "/api/v1/session"), ("DELETE", "/api/v1/session")}


PIPE = '[[pipeline]]\nname = "p"\nsource = "lines:-"\n'


def test_the_page_turns_to_another_config(tmp_path: Path) -> None:
    said: list[str] = []
    one = parse(f'[page]\nlisten = "127.0.0.1:0"\n{PIPE}')
    first = page_of(one, tmp_path, say=said.append)
    assert first is not None and said[0].startswith("page: http://127.0.0.1:")
    assert page_of(one, tmp_path, None, first, said.append) is first, "nothing of it changed"
    (tmp_path / "short").write_text("x")
    wrong = parse(f'[page]\nlisten = "127.0.0.1:0"\npassword_file = "{tmp_path}/short"\n{PIPE}')
    assert page_of(wrong, tmp_path, None, first, said.append) is first, "the one before goes on"
    with pytest.raises(ConfigError, match="8 characters"):
        about(wrong)
    other = parse(f'[page]\nlisten = "127.0.0.1:0"\nnames = ["porch"]\n{PIPE}')
    second = page_of(other, tmp_path, None, first, said.append)
    assert second is not None and second is not first and ask(second, "GET", "/", Host="porch").status == 200
    assert page_of(parse(PIPE), tmp_path, None, second, said.append) is None
    with pytest.raises(ConnectionError):
        ask(second, "GET", "/")
