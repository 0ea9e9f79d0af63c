"""The same models on Ray Serve: replicas on many machines, as many as are busy, and batches where a network takes them.

    pip install "edge-agent-runtime[ray]"
    cd deploy/cloud && serve run ray_serve:app models=edge-yolo,edge-bert token_file=/etc/edge-agent/token

Each replica opens the models as `edge-agent serve` does (registry, gate, lane) and answers the Open Inference Protocol
by the same code. Text networks in float, whose first axis is free, run once for up to BATCH requests of tensors that
come within WAIT_S and are equally long. Those in int8 take their scales from all that is in a run, and those of
pictures are made for one: they run one at a time.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault(
    "RAY_USAGE_STATS_ENABLED", "0"
)  # Ray tells its makers what it is used for, unless it is told not to

import msgspec
import numpy as np
from ray import cloudpickle, serve
from starlette.requests import Request
from starlette.responses import Response

from edge_agent.config.page import Page as Settings
from edge_agent.manifest import Served
from edge_agent.paths import home
from edge_agent.serving.models import Models
from edge_agent.ui.server import Page
from edge_agent.walk.lane import work_for

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # only the process that starts it needs this file
BATCH, WAIT_S = 8, 0.005
MOST = 16
"""requests that a replica takes; more wait in front of it, or go to another"""
SCALE = {"target_ongoing_requests": 2, "upscale_delay_s": 10.0, "downscale_delay_s": 120.0}
"""more than that many requests in each replica: one more of them; the seconds for which it has to stay so"""


class Replica:
    """One of those that answer, on one core."""

    def __init__(self, names: list[str], token_file: str, hosts: list[str]) -> None:
        models, settings = Models(threads=1), Settings(password_file=token_file, names=hosts)
        self.page = Page(settings, home() / "serve", own=models)
        self.page.access.share(token_file, "token_file")
        self.page.inference.limit.total_tokens = BATCH
        self.app = self.page.app()
        self.loop: asyncio.AbstractEventLoop
        for name in names:
            served = models.serve(name)
            file = next((row for row in served.manifest.file if row.sha256 == served.ref.sha256), None)
            free = all(len(spec.shape) > 1 and spec.shape[0] is None for spec in served.net.inputs)
            if free and file is not None and file.precision in ("fp32", "fp16"):
                models.adopt(name, msgspec.structs.replace(served, net=self._batched(served)))

    def _batched(self, served: Served) -> Any:
        """The network, whose runs wait for each other for a moment."""

        @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=WAIT_S)
        async def together(feeds: list[Any]) -> list[Any]:
            return await asyncio.to_thread(self._in_batches, served.net.run, feeds)

        def run(feed: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(together(feed), self.loop).result()

        return msgspec.structs.replace(served.net, run=run)

    def _in_batches(self, run: Callable[[Any], Any], feeds: list[Any]) -> list[Any]:
        """What `run` gives for each; those of one shape in one run."""
        alike: dict[Any, list[int]] = {}
        for number, feed in enumerate(feeds):
            alike.setdefault(tuple((name, array.shape[1:]) for name, array in sorted(feed.items())), []).append(number)
        found: list[Any] = [None] * len(feeds)
        for numbers in alike.values():
            ends = np.cumsum([len(next(iter(feeds[number].values()))) for number in numbers])
            whole = {name: np.concatenate([feeds[number][name] for number in numbers]) for name in feeds[numbers[0]]}
            with work_for(self.page.inference.settle(), time.monotonic()):
                outputs = run(whole)
            parts = {name: np.split(array, ends[:-1]) for name, array in outputs.items()}
            for at, number in enumerate(numbers):
                found[number] = {name: part[at] for name, part in parts.items()}
        return found

    async def __call__(self, request: Request) -> Response:
        """One request, whatever its path."""
        self.loop = asyncio.get_running_loop()
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(request.scope, request.receive, send)
        answer = Response(b"".join(message.get("body", b"") for message in sent), sent[0]["status"])
        answer.raw_headers = list(sent[0]["headers"])
        return answer


def app(args: dict[str, str]) -> serve.Application:
    """`models`, and `names` of hosts that it is reached by, parted by commas; `token_file`, on each node; `least` and
    `most` replicas (1 and 4).
    """
    limits = {"min_replicas": int(args.get("least", "1")), "max_replicas": int(args.get("most", "4"))}
    made = serve.deployment(Replica).options(
        name="edge-agent",
        max_ongoing_requests=MOST,
        autoscaling_config=SCALE | limits,
        ray_actor_options={"num_cpus": 1},
    )
    models, hosts = (list(filter(None, args.get(key, "").split(","))) for key in ("models", "names"))
    return made.bind(models, str(Path(args["token_file"]).resolve()), hosts)
