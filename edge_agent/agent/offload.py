"""Neighbours that look, too: what a detector's option `also` needs to ask one, within the day's bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edge_agent.agent.line import Line
from edge_agent.config import secret
from edge_agent.notify.post import post
from edge_agent.uri import parse_task

if TYPE_CHECKING:
    from edge_agent.link.budget import Budget
    from edge_agent.tasks.detect.also import Also, Send


def attach(line: Line, budget: Budget | None, urged: Callable[[], bool]) -> None:
    """Let its detectors ask their neighbours. ConfigError for a token that cannot be read."""
    for at, text in enumerate(line.config.tasks):
        options = parse_task(text).options
        if not options.get("also"):
            continue
        send = _sender(options["also"], line, at, options.get("also_token", ""))
        for team in line.teams:
            task: Any = team[at]
            also: Also = task
            also.send, also.urged = send, urged
            also.may = lambda size: budget is None or _spent(budget, size)
            also.late = min(also.late, line.client.deadline)


def _spent(budget: Budget, size: int) -> bool:
    """Whether so many bytes may go out; they are counted then."""
    if not budget.spares(size):
        return False
    budget.spend(size)
    return True


def _sender(address: str, line: Line, at: int, token: str) -> Send:
    """What posts a request to the model that an address names, or to one of this pipeline's model's name."""
    from edge_agent.tasks.detect.also import MOST, Reply

    model = next(iter(line.uses[at]), "detector")
    url = address if "/v2/" in urlsplit(address).path else f"{address.rstrip('/')}/v2/models/{model}/infer"
    login = {"Authorization": f"Bearer {secret(token, 'also_token')}"} if token else {}

    def send(body: bytes, head: int, limit_s: float) -> Reply:
        more = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(head), **login}
        answer = post(url, body, more, most=MOST, limit_s=limit_s)
        return Reply(answer.body, answer.why or ("" if answer.body else "its answer is empty or too large"))

    return send
