"""Eclipse hawkBit's Direct Device Integration API (v1), as a device: asked for a deployment, told how it went.

The server says what is to be taken, and when; what is taken is the signed bundle of that name, which is verified as any
other. So its artifact is not fetched: a software module is called KIND.NAME (its file may end in .swu or the like), and
the first number of its version is the bundle's.
"""

from __future__ import annotations

import json
import logging
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.parse import quote, urlsplit

from edge_agent import __version__
from edge_agent.errors import ConfigError, UsageError
from edge_agent.fleet.bundle import KINDS, wanted
from edge_agent.fleet.outcome import Outcome, Take

log = logging.getLogger("edge_agent")

ANSWER_S, MOST = 20.0, 1_000_000
"""seconds and bytes of an answer"""
SLEEP_S, AGAIN_S = (5.0, 3600.0), 60.0
"""seconds between two questions, at least and at most; after an error"""
NAME = re.compile(rf"({'|'.join(KINDS)})\.([A-Za-z0-9][A-Za-z0-9_-]{{0,63}})(\.[A-Za-z0-9]{{1,10}})?")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the token elsewhere."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


class Hawkbit:
    """One device at one server. Of one thread; `poll` takes as long as an update does."""

    def __init__(self, url: str, device: str, token: Callable[[], str], take: Take) -> None:
        """`url`: of the server, with the tenant; `token`: read at each question, empty for none."""
        self._base = f"{url.rstrip('/')}/controller/v1/{quote(device)}"
        self._token, self._take = token, take
        self._opener = urllib.request.build_opener(_NoRedirect)
        self.trouble = ""
        """why it could not be asked last, one line"""
        self.last: Outcome | None = None

    def poll(self) -> float:
        """Ask what is to be done, and do it; seconds until the next question. Never raises for the server's sake."""
        try:
            told = self._ask("GET", self._base)
            links = {key: one.get("href", "") for key, one in (told.get("_links") or {}).items()}
            if "configData" in links:
                self._ask("PUT", links["configData"], {"mode": "merge", "data": {"edge_agent": __version__}})
            if "cancelAction" in links:
                self._cancel(links["cancelAction"])
            elif "deploymentBase" in links:
                self._deploy(links["deploymentBase"])
            sleep = _seconds(told)
        except (OSError, HTTPException, ValueError, AttributeError, TypeError, KeyError, ConfigError) as error:
            why = f"hawkbit: {type(error).__name__}: {error}"[:300]
            if why != self.trouble:
                log.warning("%s; it is asked again", why)
            self.trouble = why
            return AGAIN_S
        self.trouble = ""
        return sleep

    def _deploy(self, href: str) -> None:
        told = self._ask("GET", href)
        if not told:  # nothing any more
            return
        at = f"{href.partition('?')[0]}/feedback"
        if told["deployment"].get("update") == "skip":
            return
        for chunk in told["deployment"]["chunks"]:
            outcome = self._chunk(str(chunk["name"]), str(chunk["version"]), at, str(told["id"]))
            self.last = outcome
            if outcome.state == "IN_PROGRESS":  # it is asked for again
                return
            if outcome.state != "SUCCEEDED":
                self._feedback(at, told["id"], "closed", "failure", f"{outcome.state}: {outcome.reason}")
                return
        self._feedback(at, told["id"], "closed", "success", "")

    def _chunk(self, name: str, version: str, at: str, action: str) -> Outcome:
        """Take what a software module names."""
        try:
            target = target_of(name, version)
        except UsageError as error:
            return Outcome("REJECTED", name[:80], "look", str(error))

        def told(outcome: Outcome) -> None:
            self._feedback(at, action, "proceeding", "none", f"{outcome.step}: {outcome.reason}".rstrip(": "))

        outcome = self._take(target, told)
        if outcome.state == "IN_PROGRESS":
            told(outcome)
        return outcome

    def _cancel(self, href: str) -> None:
        """It is taken back: nothing is under way, as one thread does all of it."""
        told = self._ask("GET", href)
        self._feedback(f"{href}/feedback", told.get("id", ""), "closed", "success", "not begun")

    def _feedback(self, at: str, action: object, execution: str, finished: str, details: str) -> None:
        status = {"execution": execution, "result": {"finished": finished}, "details": [details] if details else []}
        self._ask("POST", at, {"id": str(action), "status": status})

    def _ask(self, method: str, url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer to one question; {} for none. OSError, ValueError."""
        if _origin(url) != _origin(self._base):
            raise ValueError(f"the server leads to {url[:100]}, another host; that is not followed")
        headers = {"Accept": "application/hal+json, application/json", "User-Agent": f"edge-agent/{__version__}"}
        if token := self._token():
            headers["Authorization"] = f"TargetToken {token}"
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(url, data, headers, method=method)
        with self._opener.open(request, timeout=ANSWER_S) as answer:
            raw = answer.read(MOST + 1)
        if len(raw) > MOST:
            raise ValueError(f"an answer of more than {MOST // 1000} kB")
        told = json.loads(raw) if raw.strip() else {}
        return told if isinstance(told, dict) else {}


def target_of(name: str, version: str) -> str:
    """The bundle that a software module names. UsageError."""
    found, number = NAME.fullmatch(name), re.match(r"[1-9][0-9]{0,8}(?![0-9])", version)
    if found is None or number is None:
        raise UsageError(f"{name[:60]!a} {version[:20]!a}: is no bundle; call the module e.g. model.people, version 3")
    target = f"{found[1]}/{found[2]}/{number[0]}"
    wanted(target)
    return target


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _seconds(told: dict[str, Any]) -> float:
    """Until the next question, as the server would have it."""
    text = str(((told.get("config") or {}).get("polling") or {}).get("sleep", "00:05:00"))
    match = re.fullmatch(r"(\d{1,3}):(\d{2}):(\d{2})", text)
    asked = int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3]) if match else 300
    return max(SLEEP_S[0], min(SLEEP_S[1], float(asked)))
