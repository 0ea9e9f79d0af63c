"""What a stranger's bytes reach, each as a function of one mutant. What they must not do is raise anything unplanned.

A target returns what became of the mutant in one word. A raised exception is a bug, and so is a process that dies.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import random
import select
import signal
import socket
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import msgspec
import numpy as np
import onnx

from edge_agent import config, manifest
from edge_agent.config import Mqtt
from edge_agent.device import sandbox
from edge_agent.device.room import Room
from edge_agent.errors import ConfigError, InputError, ManifestError, SourceError
from edge_agent.events import UNREADABLE, TextEvent
from edge_agent.gate.read import Reading
from edge_agent.gate.trial import Agree, Limits, Prove, Read, Result, Variant
from edge_agent.link import blame, broker
from edge_agent.link.acks import names
from edge_agent.link.link import Link
from edge_agent.outbox.outbox import Outbox
from edge_agent.personal import FINDERS
from edge_agent.pictures.read import FILES, decode, read_picture
from edge_agent.pictures.read import Limits as PictureLimits
from edge_agent.registry import catalogue, store
from edge_agent.sources.journal import _Unit
from edge_agent.sources.mqtt import _at_place
from edge_agent.sources.parts import jpegs, multipart
from edge_agent.sources.resample import Funnel, samples
from edge_agent.sources.text import cleaner
from edge_agent.sources.wav import header
from edge_agent.walk.privacy import Hider
from tests.conftest import ROOT
from tests.fuzz.over import host_seeds, hosts, request_seeds, requests
from tests.nets import absolute_tflite, blob_finder_onnx
from tests.registry.heads import squares
from tests.tiny import tiny_detector

Target = Callable[[int, bytes], str]
"""(number of the seed, mutant) -> what became of it"""
CAMERAS = PictureLimits(33_000_000, any_kind=False)


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────


def picture_seeds() -> list[bytes]:
    """The carried pictures, small, in each format that is read."""
    image = cv2.resize(read_picture(ROOT / "deploy" / "demo" / "coffee.png").image, (64, 48))
    made = [
        cv2.imencode(kind, image, options)[1].tobytes()
        for kind, options in (
            (".jpg", []), (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]), (".jpg", [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
            (".png", []), (".webp", []), (".bmp", []), (".tiff", []), (".ppm", []), (".gif", []), (".avif", []),
            (".jp2", []),
        ) if cv2.haveImageWriter(f"x{kind}")
    ]  # fmt: skip
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    return [*made, made[0][:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + made[0][2:]]


@contextmanager
def pictures() -> Iterator[Target]:
    def picture(number: int, data: bytes) -> str:
        said = []
        for limits in (CAMERAS, FILES):
            try:
                image = decode(data, limits)
            except InputError as error:
                assert "\n" not in str(error) and len(str(error)) < 500, str(error)
                said.append("refused")
            else:
                assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size
                said.append("decoded")
        return said[1]

    yield picture


# ── streams ──────────────────────────────────────────────────────────────────────────────────────────────


def stream_seeds() -> list[bytes]:
    one = picture_seeds()[0]
    sized = b"--x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(one), one)
    plain = b"--x\r\nContent-Type: image/jpeg\r\n\r\n" + one + b"\r\n"
    return [sized * 3, plain * 3, one * 3, b"\r\n".join([sized, plain, b"--x--\r\n"])]


@contextmanager
def streams() -> Iterator[Target]:
    def stream(number: int, data: bytes) -> str:
        rng, most, seen = random.Random(data), 1 << 16, 0
        pieces = iter([data[at : at + 700] for at in range(0, len(data), 700)])

        def more() -> bytes:
            try:
                return next(pieces)
            except StopIteration:
                raise SourceError("ended") from None

        arrived = lambda: rng.random() < 0.5  # noqa: E731
        read = jpegs(more, "camera", 60.0, most, arrived) if number == 2 else multipart(
            more, "camera", 60.0, most, arrived, rng.choice(("", "x", "--x"))
        )  # fmt: skip
        try:
            for part in read:
                # what was still to come when the bound was passed
                assert len(part) <= most + 700
                seen += 1
                try:
                    decode(part, CAMERAS)
                except InputError:
                    continue
        except SourceError as error:
            assert "\n" not in str(error), str(error)
        return f"{min(seen, 3)} parts"

    yield stream


# ── sound ────────────────────────────────────────────────────────────────────────────────────────────────


def sound_seeds() -> list[bytes]:
    kinds = [(1, 8, 1), (1, 16, 2), (1, 24, 1), (3, 32, 8), (3, 64, 1), (0xFFFE, 32, 2)]
    seeds = []
    for code, bits, channels in kinds:
        align = channels * bits // 8
        head = struct.pack("<HHIIHH", code, channels, 22050, 22050 * align, align, bits)
        if code == 0xFFFE:
            head += struct.pack("<HHIH", 22, bits, 0, 1) + bytes(14)
        data = random.Random(bits).randbytes(60 * align)
        chunks = [(b"fmt ", head), (b"LIST", b"INFO" + bytes(7)), (b"data", data), (b"id3 ", bytes(20))]
        body = b"".join(name + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2) for name, part in chunks)
        seeds.append(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body)
    return seeds


@contextmanager
def sounds() -> Iterator[Target]:
    def sound(number: int, data: bytes) -> str:
        file = io.BytesIO(data)
        try:
            said = header(file.read)
        except InputError as error:
            assert "\n" not in str(error), str(error)
            return "refused"
        funnel = Funnel(said.rate, said.channels)
        heard = funnel(samples(file.read(said.size or -1), said.layout, said.channels), last=True)
        assert heard.ndim == 1 and heard.dtype == np.float32 and len(heard) <= 4 * len(data) + 1
        assert not len(heard) or (np.isfinite(heard).all() and np.abs(heard).max() <= 1)
        return "heard"

    yield sound


# ── MQTT ─────────────────────────────────────────────────────────────────────────────────────────────────


def _packet(kind: int, body: bytes) -> bytes:
    size, length = len(body), b""
    while True:
        size, low = divmod(size, 128)
        length += bytes([low | (128 if size else 0)])
        if not size:
            return bytes([kind]) + length + body


def _publish(topic: bytes, payload: bytes, *, v5: bool = True, number: int = 7, properties: bytes = b"") -> bytes:
    head = struct.pack(">H", len(topic)) + topic + struct.pack(">H", number)
    return _packet(0x32, head + (bytes([len(properties)]) + properties if v5 else b"") + payload)


def packet_seeds() -> list[bytes]:
    """What a broker sends behind its CONNACK, MQTT 5 first."""
    made = []
    for v5 in (True, False):
        none = b"\0" if v5 else b""
        made += [
            _publish(b"edge/v1/d/ack", b'{"ids": ["d/1/1", "d/1/2"]}', v5=v5),
            _publish(b"edge/v1/d/cmd/status", b'{"id": "a"}', v5=v5),
            _publish(b"words/in", "hear, hear – ☂".encode(), v5=v5, properties=b"\x0b\x01" if v5 else b""),
            _packet(0x90, b"\0\x01" + none + b"\x01"),
            _packet(0x40, b"\0\x01" + none + (b"\x10" if v5 else b"")),
            _packet(0xB0, b"\0\x01" + none + b"\0"),
            _packet(0xD0, b""),
        ]
    return [*made, _packet(0xE0, b"\x8b\0"), _packet(0xF0, b"\x18\0"),
            _packet(0x20, b"\0\0\x0a\x21\0\x14\x24\x01\x27\0\0\x10\0"), _packet(0x20, b"\0\0")]  # fmt: skip


@contextmanager
def packets() -> Iterator[Target]:
    """A link, and a broker that sends it one mutant a packet, some to a connection."""
    seeds, heard = packet_seeds(), itertools.count()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        server.settimeout(30)
        for room, name, value in (
            (broker, "FIRST_PAUSE_S", 0.001), (broker, "CONNACK_S", 0.5),
            (blame, "QUIET_S", 0.001), (blame, "AGAIN_S", (0.001, 0.002)), (blame, "WAIT_S", (0.001, 0.002)),
        ):  # fmt: skip
            stack.enter_context(patch.object(room, name, value))
        box = Outbox(folder / "store", "d")
        stack.callback(box.close)
        address = f"mqtt://127.0.0.1:{server.getsockname()[1]}"
        link = Link(Mqtt(url=address, ack=True, longest_pause_s=0.002), "d", box)
        link.subscribe("words/in", lambda topic, payload: bool(next(heard)) or True)
        link.subscribe("edge/v1/d/cmd/+", lambda topic, payload: bool(next(heard)) or True, retained=False)
        link.start()
        stack.callback(link.stop, 0)
        stack.callback(server.close)  # before it stops, which waits for a CONNACK
        waiting: list[bytes] = []

        def packet(number: int, data: bytes) -> str:
            waiting.append(data)
            if len(waiting) < 8:
                return "queued"
            box.put(TextEvent(pipeline="words", at="2026-01-01T00:00:00Z", text="x"), "alert")
            peer, _ = server.accept()
            with peer:
                peer.settimeout(10)
                first = peer.recv(4096)
                v5 = b"MQTT\x05" in first
                sound = seeds[-2] if v5 else seeds[-1]
                try:
                    peer.sendall((data if random.Random(data).random() < 0.1 else sound) + b"".join(waiting))
                    # until it has gone through them, or left
                    until = time.monotonic() + 0.05
                    while (left := until - time.monotonic()) > 0 and select.select([peer], [], [], left)[0]:
                        if not peer.recv(65536):
                            break
                except OSError:
                    pass
            waiting.clear()
            assert link.alive, "the link's thread has died"
            return "sent"

        yield packet


@contextmanager
def acknowledgements() -> Iterator[Target]:
    """What lies in a message to the agent."""

    def message(number: int, data: bytes) -> str:
        try:
            return f"{min(len(names(data)), 1)} names"
        except UNREADABLE:
            return "refused"

    yield message


def wire_seeds() -> list[bytes]:
    said = "call +49 30 901820 or ada@example.com, card ４１１１ 1111\u200b1111 1111, "
    said += "DE89 3704 0044 0532 0130 00, B-MW 12 é"
    entry = {"__CURSOR": "s=1;i=2", "__REALTIME_TIMESTAMP": "1790000000000000"}
    told = [
        {**entry, "MESSAGE": said},
        {**entry, "MESSAGE": list(said.encode())},
        {"items": [{"name": said}, {"name": 7}]},
    ]
    return [json.dumps(each, ensure_ascii=False).encode() for each in told]


@contextmanager
def wires() -> Iterator[Target]:
    """A payload with its text at a place, a line of journalctl; and what names a person in the text of both."""
    place, unit = _at_place("mqtt:t", ["items", "*", "name"]), _Unit("journal:u", [], 0, None)
    clean, hide = cleaner("fuzz"), Hider([*FINDERS], {})

    def wire(number: int, data: bytes) -> str:
        entry = unit._text(data, clean)
        texts = [clean(text, 0) for text in place(data)] + ([] if entry is None else [entry.text])
        for text in [*texts, data.decode(errors="replace")]:
            assert hide(hide(text)) == hide(text), text
        return "taken" if texts else "refused"

    yield wire


# ── TOML ─────────────────────────────────────────────────────────────────────────────────────────────────


def config_seeds() -> list[bytes]:
    return [path.read_bytes() for path in sorted((ROOT / "deploy" / "examples").rglob("*.toml"))] + [
        b'[device]\nid = "d"\n[mqtt]\nurl = "mqtt://h"\n[store]\nmax_bytes = 1000000\n'
        b'[[pipeline]]\nname = "p"\nsource = "camera:0?fps=5"\ntasks = ["detect:edge-yolo?score=0.3"]\n'
    ]


def _of_toml(folder: str, name: str, load: Callable[[Path], object], wrong: type[Exception]) -> Target:

    def toml(number: int, data: bytes) -> str:
        path = Path(folder, name)
        path.write_bytes(data)
        path.chmod(0o600)
        try:
            load(path)
        except wrong as error:
            assert "\n" not in str(error) and len(str(error)) < 4000, str(error)[:4000]
            return "refused"
        finally:
            path.unlink()
        return "taken"

    return toml


@contextmanager
def configs() -> Iterator[Target]:
    with tempfile.TemporaryDirectory() as folder:
        yield _of_toml(folder, "agent.toml", config.load, ConfigError)


def manifest_seeds() -> list[bytes]:
    return [path.read_bytes() for path in sorted((ROOT / "models").rglob("manifest.toml"))]


@contextmanager
def manifests() -> Iterator[Target]:
    with tempfile.TemporaryDirectory() as folder:
        yield _of_toml(folder, "manifest.toml", manifest.load, ManifestError)


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────


def model_seeds() -> list[bytes]:
    """ONNX first, then TFLite: small ones that are all structure, those that the program carries, and one that names a
    canary.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = [
            blob_finder_onnx(folder / "a.onnx"), squares(folder / "b.onnx", "yolov8"),
            tiny_detector(folder / "tiny") / "model.onnx", ROOT / "models" / "edge-yolo" / "model.int8.onnx",
            ROOT / "models" / "edge-bert" / "encoder.int8.onnx", _elsewhere(folder / "d.onnx"),
            absolute_tflite(folder / "c.tflite", [1, 64, 64, 3]),
            ROOT / "models" / "edge-yolo" / "model.int8.tflite",
        ]  # fmt: skip
        return [path.read_bytes() for path in made]


def _elsewhere(path: Path) -> Path:
    """A model that is refused, as its weights are said to lie in a canary of the storm."""
    model = onnx.load(blob_finder_onnx(path))
    tensor = model.graph.initializer[0]
    tensor.external_data.add(key="location", value=CANARY)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    path.write_bytes(model.SerializeToString())
    return path


CANARY = "../../canaries/weights"
ONNX_SEEDS = 6
BESIDE = {3: ROOT / "models/edge-yolo/labels.txt", 4: ROOT / "models/edge-bert/vocab.txt",
          7: ROOT / "models/edge-yolo/labels.txt"}  # fmt: skip
QUICK = Limits(seconds=30.0)
LEAVES = 0.9
"""agreement with what it was made of below which a mutant answers otherwise"""


@contextmanager
def models() -> Iterator[Target]:
    """Each mutant in a process of its own, forked from one that has loaded the runtimes, in the agent's own room."""
    import ai_edge_litert.interpreter  # noqa: F401
    import onnxruntime  # noqa: F401

    from edge_agent.backends import (
        onnx,  # noqa: F401
        tflite,  # noqa: F401
    )
    from edge_agent.gate import (
        agree,  # noqa: F401
        race,  # noqa: F401
        worth,  # noqa: F401
    )
    from edge_agent.gate.child import answer
    from edge_agent.inspect import inspect  # noqa: F401

    kept = tempfile.TemporaryDirectory()
    folder = Path(kept.name)
    seeds = model_seeds()

    def within(path: Path, seed: Path, beside: dict[str, str]) -> dict[str, Any]:
        size = path.stat().st_size
        places = [str(path.parent), str(seed.parent)]
        sandbox.enter(Room(memory=(4 << 30) + 8 * size, cpu_seconds=30, file_bytes=1 << 24, read=places))
        format = catalogue.SUFFIXES[path.suffix]

        def read(where: Path) -> Result:
            row = manifest.File(where.name, format, store.digest(where), where.stat().st_size)  # type: ignore[arg-type]
            return answer(Read(variants=[Variant(row, str(where))], threads=1, limits=QUICK, parts=beside))

        result = read(path)
        if not result.passed:
            return {"what": "unreadable", "why": result.reason}
        seen = msgspec.convert(result.figures, Reading).seen
        if seen.refusal:
            return {"what": "refused", "why": seen.refusal}
        located = catalogue.locate(str(path), read=lambda _: seen)
        parts = {row.role: str(path.parent / row.name) for row in located.manifest.file if row.format == "text"}
        mine = Variant(located.manifest.file[0], str(path))
        how: dict[str, Any] = {"manifest": located.manifest, "threads": 1, "limits": QUICK, "parts": parts}
        proved = answer(Prove(variants=[mine], **how))
        if not proved.passed:
            return {"what": "no proof", "why": proved.reason}
        origin = msgspec.convert(read(seed).figures, Reading).seen
        if origin.refusal:
            return {"what": "accepted, what it was made of is refused", "why": origin.refusal}
        theirs = catalogue.locate(str(seed), read=lambda _: origin)
        other = Variant(theirs.manifest.file[0], str(seed))
        lent = {row.role: str(seed.parent / row.name) for row in theirs.manifest.file if row.format == "text"}
        held = answer(Agree(variants=[mine, other], parent=theirs.manifest, parent_parts=lent, **how))
        agreement = held.figures.get("agreement")
        other_way = not held.passed and (agreement is None or agreement < LEAVES)
        return {"what": "accepted, answers otherwise" if other_way else "accepted", "why": held.reason}

    def model(number: int, data: bytes) -> str:
        suffix = ".onnx" if number < ONNX_SEEDS else ".tflite"
        own, original = folder / "mutant", folder / f"seed{number}"
        for place, content in ((own, data), (original, seeds[number])):
            place.mkdir(exist_ok=True)
            (place / f"m{suffix}").write_bytes(content)
            if number in BESIDE:
                (place / BESIDE[number].name).write_bytes(BESIDE[number].read_bytes())
        beside = {BESIDE[number].name: str(own / BESIDE[number].name)} if number in BESIDE else {}
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(reading)
                quiet = os.open(os.devnull, os.O_WRONLY)
                os.dup2(quiet, 1)
                os.dup2(quiet, 2)
                signal.setitimer(signal.ITIMER_REAL, 60)
                found = within(own / f"m{suffix}", original / f"m{suffix}", beside)
                os.write(writing, json.dumps({**found, "why": found["why"][:500]}).encode())
                code = 0
            except MemoryError:
                code = 3
            except BaseException as error:
                os.write(writing, json.dumps({"what": "raised", "why": repr(error)[:500]}).encode())
            finally:
                os._exit(code)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read()
        _, status = os.waitpid(pid, 0)
        for left in own.iterdir():
            left.unlink()
        if os.WIFSIGNALED(status):
            # what the child is there for
            return f"contained: {signal.Signals(os.WTERMSIG(status)).name}"
        if os.WEXITSTATUS(status) == 3:
            return "contained: memory"
        found = json.loads(said)
        assert found["what"] != "raised", found["why"]
        assert "\n" not in found["why"], found["why"]
        if found["what"].startswith("accepted, "):
            accepted = ROOT / "build" / "fuzz" / "model" / f"accepted-{number}-{zlib.crc32(data):08x}{suffix}"
            accepted.parent.mkdir(parents=True, exist_ok=True)
            accepted.write_bytes(data)
            accepted.with_suffix(".txt").write_text(f"{found['what']}: {found['why']}\n")
        return str(found["what"])

    with kept:
        yield model


KINDS: dict[str, tuple[Callable[[], list[bytes]], Callable[[], Any]]] = {
    "wire": (wire_seeds, wires),
    "model": (model_seeds, models),
    "picture": (picture_seeds, pictures),
    "multipart": (stream_seeds, streams),
    "sound": (sound_seeds, sounds),
    "packet": (packet_seeds, packets),
    "message": (packet_seeds, acknowledgements),
    "config": (config_seeds, configs),
    "manifest": (manifest_seeds, manifests),
    "host": (host_seeds, hosts),
    "request": (request_seeds, requests),
}
"""kind -> its seeds, and its target as a context"""
