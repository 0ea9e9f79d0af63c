"""``python -m tests.readme``: prints into the README what its commands print now, between its markers.

It needs what the tour uses: the published models, pictures and labels (tests/conftest.py says where they lie), and
mosquitto.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tests.broker import Mosquitto
from tests.conftest import ROOT

DATA = Path(os.environ.get("EDGE_AGENT_DATA", ROOT.parent / "shared" / "data"))
README = ROOT / "README.md"
WIDTH = 118
"""columns of a printed line; the rest of it is cut"""


class Shell:
    """A user's shell in an empty home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.env = {
            **os.environ,
            "EDGE_AGENT_HOME": str(home),
            "EDGE_AGENT_MODEL_MIRROR": str(DATA / "models"),
            "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
        }

    def __call__(self, command: str, cwd: Path = ROOT, errors: bool = True) -> list[str]:
        """The lines that `command` prints, without this machine's paths."""
        aside = subprocess.STDOUT if errors else subprocess.DEVNULL
        done = subprocess.run(
            command, shell=True, stdout=subprocess.PIPE, stderr=aside, text=True, env=self.env, cwd=cwd
        )
        return [self.clean(line) for line in done.stdout.rstrip().splitlines()]

    def clean(self, line: str) -> str:
        """Without the paths of this machine."""
        for path in (f"{DATA}/models/", f"{DATA}/", f"{self.home}/", f"{ROOT}/"):
            line = line.replace(path, "")
        return line


def block(command: str, lines: list[str], most: int = 40) -> str:
    """A console block of what was typed and the first `most` lines of the answer."""
    shown = [line if len(line) <= WIDTH else line[: WIDTH - 3].rstrip() + " …" for line in lines[:most]]
    return "\n".join(["```console", f"$ {command}", *shown, *(["…"] if len(lines) > most else []), "```", ""])


def demo(shell: Shell) -> str:
    """The demo's first lines, one of each state of its camera, and its figures."""
    command = "edge-agent demo --seconds 20"
    lines = [line for line in shell(command) if " INFO " not in line]
    told = [line for line in lines if re.match(r"\d\d:\d\d:\d\d", line)]
    kept = told[:6]
    for word in ("is new", "over gate", "enters porch", "rule welcome is on", "is dark", "is gone", "is frozen"):
        if not any(word in line for line in kept):
            kept += [line for line in told if word in line][:1]
    kept.sort(key=told.index)
    end = next(i for i, line in enumerate(lines) if " frames, " in line)
    first = [line for line in lines if line.startswith(("broker: ", "making ", "without ", "camera: "))]
    return block(command, [*first, *kept, "…", *lines[end:]])


def tour(shell: Shell) -> str:
    """The five minutes."""
    models, work = DATA / "models", shell.home / "work"
    work.mkdir()
    steps = [
        "**What is here, and what can be had.**",
        block("edge-agent models list", shell("edge-agent models list")),
        "**Find things in pictures**, films, folders, `'globs'`, on addresses and cameras (`--frames`, `--seconds`, or "
        "Ctrl-C; `-`: a list\non stdin); `detector` means the best that this device has, at first our own.",
        block(
            "edge-agent detect detector deploy/demo/*.png --save found",
            shell(f"edge-agent detect detector deploy/demo/*.png --save {work}/found"),
        ),
        "A larger one, published by Megvii (Apache-2.0), once it is fetched; the picture on top is what it drew.",
        block(
            command := "edge-agent models pull yolox-nano && edge-agent detect detector deploy/demo/coffee.png",
            shell(command),
        ),
        "**Understand text**, with labels from a few example sentences each ([the demo's](deploy/demo/intents.toml), "
        "or your own).",
        block(
            command
            := 'edge-agent understand encoder "turn the lamp on" "will it rain tomorrow?" "my sister moved to Lisbon"',
            shell(command, errors=False),
        ),
        '**Hear speech**, English, once `pip install "edge-agent-runtime[speech]"` is done: recordings, or '
        "`microphone:`;\n`--then` understands what was said.",
        block(
            command := "edge-agent models pull whisper-tiny silero-vad && edge-agent understand whisper-tiny "
            "deploy/demo/speech/*.wav",
            shell(command),
        ),
        "**Drop in a file** of your own; what it is gets read, tried, and said, or refused with the reason.",
        block(
            "edge-agent models inspect yolov8n_int8.tflite",
            shell(f"edge-agent models inspect {models}/test-only/yolov8n_int8.tflite"),
            16,
        ),
        block(
            "edge-agent models add yolox_nano_int8_broken.tflite",
            shell(f"edge-agent models add {models}/yolox_nano_int8_broken.tflite"),
        ),
        "**Measure it** on labels, with how far each figure could be off, and race its variants on this device.",
        block(
            "edge-agent evaluate yolox-nano coco_val94",
            shell(f"edge-agent evaluate yolox-nano {DATA}/coco_val94", errors=False),
            9,
        ),
        block(command := "edge-agent bench yolox-nano", shell(command, errors=False), 9),
        "**Make it smaller** with 96 pictures, no labels: what must stay in float is found by measuring, and the "
        "result has to agree with its parent ([how](docs/quantize.md)).",
        block(
            "edge-agent quantize yolox-nano --data coco_calib96 --auto --out nano-int8",
            shell(
                f"edge-agent quantize yolox-nano --data {DATA}/coco_calib96 --auto --out {work}/nano-int8", errors=False
            ),
            16,
        ),
        "**Run it** on [a folder](deploy/examples/folder.toml), a camera or a log, and hear what comes out; `--audit` "
        "says whether all of it came.",
        run_and_listen(shell, work),
    ]
    return "\n\n".join(step.strip("\n") for step in steps) + "\n"


def run_and_listen(shell: Shell, work: Path) -> str:
    """`run` on the carried pictures beside `listen --audit`."""
    shutil.copytree(ROOT / "deploy" / "demo", work / "photos", ignore=shutil.ignore_patterns("*.t*"))
    broker = Mosquitto(work)
    try:
        config = (ROOT / "deploy" / "examples" / "folder.toml").read_text()
        config = config.replace('"mqtt://127.0.0.1"', f'"{broker.url}"')
        head = '[store]\npath = "store"\n\n[device]\nid = "porch"\n\n[mqtt]'
        (work / "folder.toml").write_text(config.replace("[mqtt]", head))
        listener = subprocess.Popen(
            ["edge-agent", "listen", "--url", broker.url, "--audit"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=shell.env,
        )  # fmt: skip
        time.sleep(2)
        ran = shell("edge-agent run -c folder.toml", cwd=work)
        time.sleep(1)
        listener.send_signal(signal.SIGTERM)
        heard = listener.communicate()[0].rstrip().splitlines()
    finally:
        broker.stop()
    kept = [line for line in ran if "events kept" in line]
    return block("edge-agent listen --url mqtt://127.0.0.1 --audit &\n$ edge-agent run -c folder.toml", [*heard, *kept])


def put(text: str, name: str, inside: str) -> str:
    """`text` with `inside` between the markers of that name."""
    return re.sub(
        rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda m: f"{m[1]}\n{inside}\n{m[2]}", text, flags=re.DOTALL
    )


def main() -> None:
    """Run everything, then write."""
    with tempfile.TemporaryDirectory() as home:
        shell = Shell(Path(home))
        parts = {"demo": demo(shell), "tour": tour(shell)}
    text = README.read_text(encoding="utf-8")
    for name, inside in parts.items():
        text = put(text, name, inside)
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
