"""The real agent on a board that it and real neighbours heat: ``python -m tests.bench.burn FILM MODEL [SECONDS]``.

A thermal zone in a folder that stands for /sys says what a model of the board makes of the processor time of the agent
and of three processes that burn, as the kernel counts it. Three stretches of SECONDS (120): alone, beside them, alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

AIR_C, CORE_C, SLOW_S, LIMIT_C = 32.0, 120.0, 20.0, 60
"""of the board: air, what a core adds, its time constant; and the limit"""
BURN = """
import time
while True:
    end = time.process_time() + 0.07
    while time.process_time() < end:
        pass
    time.sleep(0.03)
"""
CONFIG = """
[device]
id = "burn"
[store]
path = "{folder}/store"
[limits]
celsius = {limit}
[[pipeline]]
name = "yard"
source = "files:{film}?loop=yes&fps=10"
tasks = ["detect:{model}", "track"]
"""


def spent(pid: int) -> float:
    """Seconds of processor time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Board:
    """How warm it is, told by a file."""

    def __init__(self, folder: Path) -> None:
        self.zone, self.warm = folder / "class/thermal/thermal_zone0/temp", 40.0
        self.zone.parent.mkdir(parents=True)
        self.say()

    def say(self) -> None:
        fresh = self.zone.with_name("new")
        fresh.write_text(f"{self.warm * 1000:.0f}\n")
        fresh.replace(self.zone)

    def live(self, what: str, seconds: float, agent: int, burners: int) -> None:
        """Be heated for a while, and print what by."""
        others = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(burners)]
        pids, most = [agent, *(one.pid for one in others)], self.warm
        first = last = [spent(pid) for pid in pids]
        began = then = time.monotonic()
        while then - began < seconds:
            time.sleep(0.5)
            now, used = time.monotonic(), [spent(pid) for pid in pids]
            cores = (sum(used) - sum(last)) / (now - then)
            self.warm += (AIR_C + CORE_C * cores - self.warm) * min(1.0, (now - then) / SLOW_S)
            then, last, most = now, used, max(most, self.warm)
            self.say()
        for one in others:
            one.kill()
            one.wait()
        mine, theirs = ((sum(last[part]) - sum(first[part])) / seconds for part in (slice(0, 1), slice(1, None)))
        print(f"{what}: agent {mine:.2f} cores, burners {theirs:.2f}, {most:.1f} °C at most", flush=True)


def main(film: Path, model: str, seconds: float = 120.0) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        board = Board(folder / "sys")
        (folder / "agent.toml").write_text(
            CONFIG.format(folder=folder, limit=LIMIT_C, film=film.resolve(), model=model)
        )
        words = [sys.executable, "-m", "edge_agent", "run", "-c", str(folder / "agent.toml")]
        env = {**os.environ, "EDGE_AGENT_SYS": str(folder / "sys")}
        with subprocess.Popen(words, stderr=subprocess.PIPE, env=env, text=True) as agent:
            assert agent.stderr is not None
            log = agent.stderr
            threading.Thread(target=lambda: [print(line, end="") for line in log if "[limits]" in line]).start()
            for what, burners in (("alone", 0), ("beside three that burn", 3), ("alone again", 0)):
                board.live(what, seconds, agent.pid, burners)
            agent.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(float, sys.argv[3:4]))
