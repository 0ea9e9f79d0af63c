"""What a page costs an agent: ``python -m tests.ui.budget`` (three minutes)."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from edge_agent.sources.clip import make_clip
from tests.broker import free_port
from tests.conftest import ROOT

SETTLE_S, MEASURE_S = 12.0, 20.0


def rss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def look(port: int, counts: list[int]) -> None:
    wire = http.client.HTTPConnection("127.0.0.1", port)
    wire.request("GET", "/api/v1/pipelines/cam/live?always=1")
    answer = wire.getresponse()
    with suppress(OSError, http.client.HTTPException):
        while data := answer.read1(65536):
            counts.append(data.count(b"X-About"))


def measured(folder: Path, viewers: int | None) -> tuple[float, float, float]:
    """Memory (MB), share of a core (percent) and pictures a second and viewer; `viewers` None: without a page."""
    port, counts = free_port(), list[int]()
    page = "" if viewers is None else f'[page]\nlisten = "127.0.0.1:{port}"\n'
    (folder / "agent.toml").write_text(
        f'[device]\nid = "b"\n[store]\npath = "{folder}/store{port}"\n{page}[[pipeline]]\nname = "cam"\n'
        f'source = "files:{folder}/clip.avi?pace=own&loop=true"\ntasks = ["detect:edge-yolo"]\n'
    )
    command = [sys.executable, "-m", "edge_agent", "run", "-c", str(folder / "agent.toml")]
    agent = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        time.sleep(SETTLE_S)
        for _ in range(viewers or 0):
            threading.Thread(target=look, args=(port, counts), daemon=True).start()
        time.sleep(2)
        before, seen, began = cpu_s(agent.pid), sum(counts), time.monotonic()
        time.sleep(MEASURE_S)
        took = time.monotonic() - began
        used, came = cpu_s(agent.pid) - before, (sum(counts) - seen) / max(1, viewers or 0)
        return rss_mb(agent.pid), 100 * used / took, came / took
    finally:
        agent.terminate()
        agent.wait()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_clip(ROOT / "deploy" / "demo", folder / "clip.avi")
        measured(folder, None)  # models are proved and raced here, and not beside what is measured
        for viewers in (None, 0, 1, 10):
            rss, cpu, rate = measured(folder, viewers)
            what = "no page" if viewers is None else f"{viewers} look"
            print(f"{what:10} {rss:6.1f} MB {cpu:5.1f} % of a core {rate:5.1f} pictures/s each", flush=True)


if __name__ == "__main__":
    main()
