"""What the benchmarks run on: models, added to a registry of their own as a user would, a clip and some text."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.backends import open_net
from edge_agent.errors import EdgeAgentError
from edge_agent.gate.opened import input_of
from edge_agent.manifest import Served
from edge_agent.registry.catalogue import locate
from edge_agent.registry.files import file_path, parts_of
from edge_agent.serving.models import Models
from edge_agent.sources import open_source
from edge_agent.sources.clip import make_clip
from edge_agent.types import Frame, ModelRef
from edge_agent.uri import Uri
from tests.bench.graphs import NETWORKS, write, write_int8
from tests.conftest import ROOT

OWN, OWN_FLOAT = "edge-yolo", "edge-yolo-float"
"""the project's own detector as it is carried, with all its files, and its float ONNX file alone"""
DETECTORS = ("yolov8n", "yolo11n", "yolox-nano", OWN, OWN_FLOAT)
SHAPED = ("yolov8n", "yolo11n")
PROOFS = sorted((ROOT / "deploy" / "demo").glob("*.png"))
VIDEO = "video/vtest.avi"
FRAMES = 40


@dataclass(frozen=True, slots=True)
class Place:
    """Where a benchmark finds and leaves things; made by `prepare`, inherited by child processes through HOME."""

    folder: Path
    data: Path | None
    """real models, video and text; None: only what the repository carries"""
    peers: Path | None = None
    """Python of the peers' environment; None: they are not installed"""

    def model(self, name: str) -> Path | None:
        """The stock ONNX file of a detector, written when it is one of `SHAPED`; None where there is no data."""
        base = name.removesuffix("-int8")
        if base in NETWORKS:
            path = write(self.folder / "graphs", base, PROOFS)
            return write_int8(path, PROOFS) if name.endswith("-int8") else path
        if name in (OWN, OWN_FLOAT):
            return ROOT / "models" / "edge-yolo" / "model.onnx"
        path = self.data / "models" / f"{name.replace('-', '_')}.onnx" if self.data else Path()
        return path if path.is_file() else None

    def here(self, names: tuple[str, ...] = DETECTORS) -> list[str]:
        """Those of `names` that can be had."""
        return [name for name in names if self.model(name) is not None]

    def registered(self, name: str) -> str:
        """Add a detector to the registry, as a user does, and give the name that it has there; our own is there."""
        raced = self.home / f"raced-{name}"
        if not raced.exists():
            path = self.model(name)
            assert path is not None
            if name != OWN:
                _agent("models", "add", str(path), "--name", _taken(name))
            self.race(name)
            raced.touch()
        return _taken(name)

    def race(self, name: str, threads: int = 0, cpus: Sequence[int] = ()) -> None:
        """Find out which form of a detector is the fastest here (on `cpus`), and remember it, as `run` does."""
        _agent("bench", _taken(name), "--seconds", "2", "--threads", str(threads), cpus=cpus)

    @property
    def home(self) -> Path:
        """Of the registry."""
        return self.folder / "home"

    def video(self) -> Path:
        """People walking, 768x576; the demo's clip where there is no data."""
        real = self.data / VIDEO if self.data else None
        if real is not None and real.is_file():
            return real
        clip = self.folder / "clip.avi"
        if not clip.is_file():
            make_clip(ROOT / "deploy" / "demo", clip)
        return clip

    def frames(self, count: int = FRAMES) -> list[Frame]:
        """The first frames of the video."""
        stop = threading.Event()
        found: list[Frame] = []
        for item in open_source(Uri("files", str(self.video()))).run(stop):
            if isinstance(item, Frame):
                found.append(item)
            if len(found) == count:
                break
        return found

    def clip(self, count: int) -> Path:
        """The first `count` frames of the video as a file."""
        import cv2

        path = self.folder / f"clip-{count}.mp4"
        if not path.is_file():
            frames = self.frames(count)
            size = frames[0].width, frames[0].height
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, size)
            for frame in frames:
                writer.write(frame.image)
            writer.release()
        return path

    def sentences(self, count: int = 400) -> list[str]:
        """Film reviews; the demo's lines again and again where there is no data."""
        table = self.data / "text" / "sst2" / "dev.tsv" if self.data else None
        if table is not None and table.is_file():
            lines = [line.split("\t")[1] for line in table.read_text().splitlines()[1:]]
        else:
            lines = (ROOT / "deploy" / "demo" / "lines.txt").read_text().splitlines()
        lines = [line for line in lines if line.strip()]
        return [lines[i % len(lines)] for i in range(count)]


def _taken(name: str) -> str:
    """What a detector is called in the registry."""
    return name if name == OWN else f"bench-{name}"


def _agent(*arguments: str, cpus: Sequence[int] = ()) -> None:
    """One verb of the agent, in a process of its own. EdgeAgentError with what it said."""
    pinned = ["taskset", "-c", ",".join(map(str, cpus))] if cpus else []
    command = [*pinned, sys.executable, "-m", "edge_agent", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise EdgeAgentError(done.stderr.strip())


def prepare(folder: Path, data: Path | None, peers: Path | None = None, keep: bool = False) -> Place:
    """A new registry in `folder` (the networks that were built there stay); environment set for children too."""
    place = Place(folder, data, peers)
    if not keep:
        shutil.rmtree(place.home, ignore_errors=True)
    place.home.mkdir(parents=True, exist_ok=True)
    os.environ["EDGE_AGENT_HOME"] = str(place.home)
    if data is not None:
        os.environ["EDGE_AGENT_MODEL_MIRROR"] = str(data / "models")
    return place


def served(place: Place, name: str, threads: int = 0) -> Served:
    """The detector as the agent serves it, in its fastest form on so many threads."""
    taken = place.registered(name)
    if threads:
        place.race(name, threads)
    return Models(threads=threads).serve(taken)


def plain(place: Place, name: str, threads: int = 1) -> Served:
    """The same detector with its stock file in our own session, nothing cut off: what its boxes are held against."""
    located = locate(place.registered(name))
    row = located.manifest.original()
    path = file_path(located, row)
    net = open_net(path, row.format, threads)
    ref = ModelRef(located.manifest.name, located.manifest.version, row.sha256)
    return Served(located.manifest, ref, net, parts_of(located), input_of(located.manifest, row), "")


def again(frames: list[Frame]) -> Iterator[Frame]:
    """The frames for ever."""
    while True:
        yield from frames
