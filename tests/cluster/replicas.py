"""Load on replicas behind one address: how many there are, and how long a request takes, while it rises and falls.

``python -m tests.cluster.replicas`` does it on two nodes of Ray on this machine, which the extra [ray] has to be here
for, and prints a row for each part of the load.
"""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.broker import free_port
from tests.conftest import ROOT

TOKEN = "0123456789abcdef" * 2
PICTURES = 4
"""of a request"""
LOAD = ((30, 0.15), (20, 1.0), (40, 1.0), (45, 0.15))
"""seconds, and requests a second as a share of those that one client that waits for each answer gets"""


class Part(NamedTuple):
    """What became of a part of the load."""

    rate: float
    took: list[float]
    """milliseconds of each request, from when it was due"""
    wrong: list[str]
    """what was answered otherwise than right"""
    replicas: int
    """that there were at its end"""

    def row(self) -> str:
        ordered = sorted(self.took)
        p95 = ordered[int(0.95 * len(ordered))]
        took = f"median {statistics.median(ordered):.0f} ms, p95 {p95:.0f} ms"
        return f"{self.rate}/s: {len(ordered)} requests, {took}, {len(self.wrong)} wrong, {self.replicas} replicas"


def request() -> bytes:
    """Pictures for edge-yolo, in the words of the Open Inference Protocol."""
    picture = base64.b64encode((ROOT / "deploy" / "demo" / "coffee.png").read_bytes()).decode()
    one = {"name": "image", "datatype": "BYTES", "shape": [PICTURES], "data": [picture] * PICTURES}
    return json.dumps({"inputs": [one | {"parameters": {"content_type": "base64"}}]}).encode()


def ask(port: int, body: bytes, model: str = "edge-yolo") -> tuple[int, bytes]:
    wire = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        wire.request("POST", f"/v2/models/{model}/infer", body, {"Authorization": f"Bearer {TOKEN}"})
        answer = wire.getresponse()
        return answer.status, answer.read()
    finally:
        wire.close()


def load(port: int, seconds: float, rate: float, replicas: Callable[[], int]) -> Part:
    """Requests that are due at even distances, whether or not those before are answered."""
    body, right = request(), ask(port, request())[1]
    took, wrong, began = list[float](), list[str](), time.monotonic()

    def one(due: float) -> None:
        try:
            status, answer = ask(port, body)
        except OSError as error:
            status, answer = 0, str(error).encode()
        took.append(1e3 * (time.monotonic() - due))
        if status != 200 or answer != right:
            wrong.append(f"{status} {answer[:80]!r}")

    threads = list[threading.Thread]()
    for number in range(int(seconds * rate)):
        due = began + number / rate
        time.sleep(max(0.0, due - time.monotonic()))
        threads.append(threading.Thread(target=one, args=(due,)))
        threads[-1].start()
    now = replicas()
    for thread in threads:
        thread.join()
    return Part(rate, took, wrong, now)


def alone(port: int, seconds: float = 10.0) -> float:
    """Requests a second that one client gets answered."""
    body, count, began = request(), 0, time.monotonic()
    while time.monotonic() - began < seconds:
        ask(port, body)
        count += 1
    return count / seconds


def _in_float(folder: Path) -> Path:
    """A model folder: edge-bert with its float encoder alone."""
    made, own = folder / "floats", ROOT / "models" / "edge-bert"
    made.mkdir()
    head, *rows = (own / "manifest.toml").read_text().replace('"edge-bert"', '"floats"').split("[[file]]")
    kept = [row for row in rows if '"encoder.onnx"' in row or '"vocab.txt"' in row]
    (made / "manifest.toml").write_text("[[file]]".join([head.replace('card = "README.md"\n', ""), *kept]))
    for name in ("encoder.onnx", "vocab.txt"):
        shutil.copy(own / name, made)
    return made


@contextmanager
def on_ray(folder: Path, **scale: float) -> Iterator[tuple[int, Callable[[], int]]]:
    """The port, and how many replicas there are, on two nodes of Ray. `scale`: of the deployment, as Ray has it."""
    sys.path.insert(0, str(ROOT / "deploy" / "cloud"))
    import ray
    import ray_serve
    from ray import serve
    from ray.cluster_utils import Cluster

    (folder / "token").write_text(TOKEN)
    ray_serve.SCALE.update(scale)
    few: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**few, "include_dashboard": False})
    cluster.add_node(**few)
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        port = free_port()
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        made = ray_serve.app({"models": f"edge-yolo,{_in_float(folder)}", "token_file": str(folder / "token")})
        serve.run(made, name="edge", logging_config={"log_level": "ERROR"})

        def replicas() -> int:
            return int(serve.status().applications["edge"].deployments["edge-agent"].replica_states.get("RUNNING", 0))

        yield port, replicas
        serve.shutdown()
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    with (
        tempfile.TemporaryDirectory() as made,
        on_ray(Path(made), upscale_delay_s=3.0, downscale_delay_s=20.0) as (port, replicas),
    ):
        whole = alone(port)
        for seconds, part in LOAD:
            print(load(port, seconds, round(part * whole, 1), replicas).row(), flush=True)
