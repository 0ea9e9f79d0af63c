"""The Open Inference Protocol v2: every model that serves here, over HTTP, as tensors or as pictures and texts.

A request takes its turn on the lane that pipelines take theirs on, as a client of its own with a priority and a share.
Beside the tensors of its network a model takes BYTES: `image` (a JPEG or PNG), `text` or `sound` (a WAV), and gives
`found`: JSON, as `edge-agent detect --json` and `understand --json` print it.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import numpy as np
from anyio.to_thread import run_sync
from starlette.responses import Response

from edge_agent import __version__
from edge_agent.config import Inference as Settings
from edge_agent.errors import EdgeAgentError, InputError, LateError, ModelError, nearest
from edge_agent.manifest import Served
from edge_agent.paths import home
from edge_agent.tasks import PLAIN, TASKS, found_at, make_task
from edge_agent.types import Audio, Frame, Task, Text
from edge_agent.ui.calls import Ask, Call, Refused, json, read_body
from edge_agent.ui.decoded import FOUND, IMAGE, SOUND, TEXT, decoded, sample_of
from edge_agent.ui.tensors import HEADER, Request, Value, check, described, read, written
from edge_agent.uri import Uri
from edge_agent.walk.fair import Client
from edge_agent.walk.lane import work_for
from edge_agent.walk.spread import Spread

if TYPE_CHECKING:
    from edge_agent.ui.server import Page

MOST = 32 << 20
"""bytes of a request: a frame of 1280x1280 in float32 takes 20 MB, as JSON five times that"""
MOST_JSON = 16 << 20
"""of the JSON in it, which takes ten times its size in memory"""
AT_ONCE, WAITING = 2, 16
"""requests that are worked on, and that are here at all; more are told to come again"""
REST_S, LEAVE_S = 3.0, 20.0
"""seconds without a request after which one that leaves goes, and after which it goes whatever comes"""
MOST_ELEMENTS = 16
"""pictures, texts or sounds of a request"""
KINDS: dict[type, str] = {Frame: IMAGE, Text: TEXT, Audio: SOUND}
"""what a task takes -> the input of BYTES for it"""
KEPT = 8
"""tasks that are kept ready, those that were asked last"""
OPTIONS = ("score", "iou", "max", "top")
"""of a task, that a request may set by its parameters; others name files"""
PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "ai-edge-litert": "litert_tflite", "tflite-runtime": "tflite_tflite"}


class Account(msgspec.Struct):
    """What requests to one model came to."""

    answered: int = 0
    refused: int = 0
    took: Spread = msgspec.field(default_factory=Spread)
    """milliseconds of those that were answered, from when they were read"""


class Server:
    """Answers requests on the models that are open."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._settings, self.client = Settings(), Client()
        self.accounts: dict[str, Account] = {}
        self._here, self._asked = 0, -math.inf
        self.leaving = threading.Event()
        """set: not ready any more, so that a balancer asks others; requests are still answered"""
        self.limit = anyio.CapacityLimiter(AT_ONCE)
        """requests that are worked on at once"""
        self._ready: OrderedDict[tuple[str, ...], tuple[Task, threading.Lock]] = OrderedDict()
        self._lock = threading.Lock()

    def settle(self) -> Client:
        """The users whose requests are answered, as the config has it now."""
        agent = self._page.agent
        given = agent.config.inference if agent is not None else None
        settings = given or Settings()
        if settings != self._settings or self.client.deadline == float("inf"):
            self._settings = settings
            late = settings.deadline_ms / 1000
            self.client = Client(settings.priority, settings.share, late, True, used=self.client.used)
        return self.client

    def models(self) -> dict[str, Served]:
        """Name -> model, of all that serve now."""
        return {served.ref.name: served for served in self._page.models.open_now().values()}

    def model(self, ask: Ask) -> Served:
        """The one that a path names. Refused."""
        name, version = ask.path("name"), ask.request.path_params.get("version")
        served = self.models().get(name) or self._page.models.open_now().get(name)
        if served is None:
            raise Refused(404, f'no model "{name[:80]}" serves here{nearest(name[:80], self.models())}')
        if version is not None and version != served.ref.version:
            raise Refused(404, f"{served.ref.name} serves as version {served.ref.version}")
        return served

    def leave(self) -> None:
        """Wait until nothing is asked any more, REST_S or at most LEAVE_S."""
        self.leaving.set()
        began = time.monotonic()
        while (self._here or time.monotonic() - self._asked < REST_S) and time.monotonic() - began < LEAVE_S:
            time.sleep(0.05)

    # ── inference ────────────────────────────────────────────────────────────────────────────────────────

    async def infer(self, ask: Ask) -> Response:
        """One request."""
        served = self.model(ask)
        if self._here >= WAITING:
            raise Refused(503, f"{WAITING} requests are here already; try again later", {"Retry-After": "1"})
        account = self.accounts.setdefault(served.ref.name, Account())
        headers = ask.request.headers
        if headers.get("content-encoding", "identity") != "identity":
            raise Refused(415, "a request is not packed; send it without Content-Encoding")
        self._here, self._asked = self._here + 1, time.monotonic()
        try:
            body = await read_body(ask.request, MOST)
            began = time.monotonic()
            answer = await run_sync(self._answer, served, body, headers.get(HEADER), began, limiter=self.limit)
            account.answered += 1
            account.took.add(1e3 * (time.monotonic() - began))
            return answer
        except BaseException:
            account.refused += 1
            raise
        finally:
            self._here -= 1

    def _answer(self, served: Served, body: bytes, head: str | None, began: float) -> Response:
        request, given = read(body, head, MOST_JSON)
        try:
            with work_for(self.settle(), began):
                found = self._found(served, request, given)
        except LateError:
            why = f"no turn on the processor within {self._settings.deadline_ms:.0f} ms; try again later"
            raise Refused(503, why, {"Retry-After": "1"}) from None
        except ModelError as error:
            raise ModelError(re.sub(r"^/\S+: ", "", str(error))) from None  # where its file lies is nobody's concern
        answer = {"model_name": served.ref.name, "model_version": served.ref.version}
        made, headers = written(answer | ({"id": request.id} if request.id else {}), found, request)
        return Response(made, 200, {**headers, "Cache-Control": "no-store"})

    def _found(self, served: Served, request: Request, given: dict[str, Value]) -> dict[str, Value]:
        """The outputs that are asked for. InputError, ModelError, LateError."""
        if any(isinstance(value, list) for value in given.values()):
            return {FOUND: self._decoded(served, request, given)}
        check(served.net.inputs, given)
        wanted = _outputs(served, request)
        outputs = served.net.run({name: np.asarray(value) for name, value in given.items()})
        return {name: np.asarray(outputs[name]) for name in wanted}

    def _decoded(self, served: Served, request: Request, given: dict[str, Value]) -> list[bytes]:
        """What is found in pictures, texts or sounds."""
        kind, elements = _elements(request, given)
        options = {key: str(value) for key, value in request.parameters.items() if key in OPTIONS}
        task, lock, show = self._task(served, options)
        if kind != (takes := _takes(task)):
            raise InputError(f'{served.ref.name} takes no "{kind}", but {takes or "its tensors"}')
        with lock:
            return [decoded(task, show, sample_of(kind, one)) for one in elements]

    def _task(self, served: Served, options: dict[str, str]) -> tuple[Task, threading.Lock, Any]:
        """What is to be done with samples, ready. One thread at a time works with it. InputError, ConfigError."""
        purpose = served.manifest.task
        if purpose not in PLAIN:
            raise InputError(f"{served.ref.name} takes tensors only")
        name = PLAIN[purpose]
        key = (served.ref.sha256, served.ref.name, *sorted(f"{key}={value}" for key, value in options.items()))
        with self._lock:
            kept = self._ready.pop(key, None)
            if kept is None:
                models = self._page.models
                serve = lambda asked: served if asked == served.ref.name else models.serve(asked)  # noqa: E731
                kept = make_task(Uri(name, served.ref.name, options), serve, home()), threading.Lock()
            self._ready[key] = kept
            while len(self._ready) > KEPT:
                self._ready.popitem(last=False)
        return *kept, found_at(TASKS[name].show)

    # ── what there is ────────────────────────────────────────────────────────────────────────────────────

    def about(self, served: Served) -> dict[str, Any]:
        """The metadata of a model."""
        engine = served.net.engine.partition(" ")[0]
        more = {"task": served.manifest.task, "why": served.why, "sha256": served.ref.sha256}
        more |= {"licence": served.manifest.licence, **self._bytes_of(served)}
        return {
            "name": served.ref.name,
            "versions": [served.ref.version],
            "platform": PLATFORMS.get(engine, f"{engine}_{engine}"),
            "inputs": [described(spec) for spec in served.net.inputs],
            "outputs": [described(spec, wide=True) for spec in served.net.outputs],
            "properties": more,
        }

    def _bytes_of(self, served: Served) -> dict[str, str]:
        """Which BYTES it takes besides."""
        try:
            kind = _takes(self._task(served, {})[0])
        except EdgeAgentError:
            return {}
        return {"bytes_input": kind, "bytes_output": FOUND} if kind else {}


def _outputs(served: Served, request: Request) -> list[str]:
    """Names of those that are asked for. InputError."""
    if any("classification" in one.parameters for one in request.outputs):
        raise InputError(f'classification is not known here; send "{IMAGE}" or "{TEXT}" as BYTES for what is found')
    names = [spec.name for spec in served.net.outputs]
    wanted = [one.name for one in request.outputs]
    for name in set(wanted) - set(names):
        raise InputError(f'no output "{name[:80]}"{nearest(name[:80], names)}')
    return wanted or names


def _elements(request: Request, given: dict[str, Value]) -> tuple[str, list[bytes]]:
    """Which input of BYTES it is, and what is in it. InputError."""
    (kind, elements), *more = given.items()
    if more or kind not in KINDS.values() or not isinstance(elements, list):
        raise InputError(f'BYTES are one input "{IMAGE}", "{TEXT}" or "{SOUND}", and none beside it')
    if any(one.name != FOUND for one in request.outputs):
        raise InputError(f'the output for "{kind}" is "{FOUND}"')
    if len(elements) > MOST_ELEMENTS:
        raise InputError(f"at most {MOST_ELEMENTS} at once")
    return kind, elements


def _takes(task: Task) -> str:
    """Which input of BYTES is for it; empty: none."""
    return next((name for kind, name in KINDS.items() if kind in task.takes), "")


def calls(page: Page) -> list[Call]:
    """The protocol's."""
    server = page.inference = Server(page)
    limits = {"Cache-Control": "no-store"}

    def live(ask: Ask) -> Response:
        return Response(b"", 200, limits)

    def ready(ask: Ask) -> Response:
        return Response(b"", 503 if server.leaving.is_set() or not server.models() else 200, limits)

    def about(ask: Ask) -> dict[str, Any]:
        return {"name": "edge-agent", "version": __version__, "extensions": ["binary_tensor_data", "bytes_found"]}

    def index(ask: Ask) -> list[dict[str, str]]:
        found = server.models().values()
        return [{"name": one.ref.name, "version": one.ref.version, "state": "READY"} for one in found]

    def model_ready(ask: Ask) -> Response:
        server.model(ask)
        return Response(b"", 200, limits)

    def model(ask: Ask) -> Response:
        return json(server.about(server.model(ask)))

    of = "/v2/models/{name}"
    rows = [
        Call("GET", "/v2/health/live", "", "Whether it answers at all.", live),
        Call("GET", "/v2/health/ready", "", "Whether models serve.", ready),
        Call("GET", "/v2", "viewer", "What this server is.", about, dict[str, Any]),
        Call("GET", "/v2/", "viewer", "The same.", about, dict[str, Any]),
        Call("POST", "/v2/repository/index", "viewer", "The models that serve.", index, list[dict[str, str]]),
    ]
    for at in (of, f"{of}/versions/{{version}}"):
        rows += [
            Call("GET", at, "viewer", "What a model takes and gives.", model, dict[str, Any]),
            Call("GET", f"{at}/ready", "", "Whether a model serves.", model_ready),
            Call("POST", f"{at}/infer", "operator", "Run a model.", server.infer, dict[str, Any]),
        ]
    return rows
