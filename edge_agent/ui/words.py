"""Texts that somebody tries: answered as those of ``cmd/understand`` are, with the same limits and in the same turn."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from edge_agent.tasks import TASKS
from edge_agent.types import Text
from edge_agent.ui.calls import Ask, Call, Refused

if TYPE_CHECKING:
    from edge_agent.ui.server import Page

ANSWER_S = 60.0
LONGEST = 20_000
"""characters of a text"""
_Text = Annotated[str, msgspec.Meta(max_length=LONGEST)]


class Tried(msgspec.Struct, frozen=True, omit_defaults=True):
    """A text, and what is to be done with it; see docs/understand.md."""

    text: _Text
    task: str = "classify"
    model: str = ""
    second: _Text = ""
    context: _Text = ""
    store: str = ""
    top: int = 0


def calls(page: Page) -> list[Call]:
    """Those of texts."""

    def tasks(ask: Ask) -> list[str]:
        return [name for name, row in TASKS.items() if row.takes is Text and row.needs]

    def try_it(ask: Ask) -> dict[str, Any]:
        got, come = list[dict[str, Any]](), threading.Event()

        def reply(body: dict[str, Any]) -> None:
            got.append(body)
            come.set()

        page.now.requests.ask(msgspec.json.encode(ask.body), reply)
        if not come.wait(ANSWER_S):
            raise Refused(504, f"no answer within {ANSWER_S:.0f} s: pipelines go first")
        if not got[0]["ok"]:
            raise Refused(409, str(got[0]["error"]))
        result: dict[str, Any] = got[0]["result"]
        return result

    return [
        Call("GET", "/api/v1/tasks", "viewer", "The tasks that take a text.", tasks, list[str]),
        Call("POST", "/api/v1/try", "operator", "Have a text classified, tagged, answered …; needs [understand].",
             try_it, dict[str, Any], Tried),
    ]  # fmt: skip
