"""What comes in beside the camera, the broker and the files: requests to models over HTTP, and hosts of Sparkplug."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import msgspec
import numpy as np

from edge_agent.errors import InputError
from edge_agent.link.sparkplug.host import Host
from edge_agent.link.sparkplug.payload import asked
from edge_agent.types import TensorSpec
from edge_agent.ui.decoded import sample_of
from edge_agent.ui.tensors import check, read, written
from tests.sparkplug import REBIRTH, request

SPECS = (TensorSpec("images", (1, 3, None, None), "float32"), TensorSpec("ids", (1, None), "int64"))
MOST = 1 << 20


def request_seeds() -> list[bytes]:
    """A head's length in four bytes (0: none), then the body."""
    picture = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    array = {"name": "images", "datatype": "FP32", "shape": [1, 3, 2, 2], "data": [0.5] * 12}
    binary = {"name": "ids", "datatype": "INT64", "shape": [1, 2], "parameters": {"binary_data_size": 16}}
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 4 + len(picture)}}
    coded = {**image, "parameters": {"content_type": "base64"}, "data": [base64.b64encode(picture).decode()]}
    text = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["Anna", "Berlin"]}
    heads: list[tuple[dict[str, Any], bytes]] = [
        ({"id": "1", "inputs": [array], "outputs": [{"name": "images", "parameters": {"binary_data": True}}]}, b""),
        ({"inputs": [array, binary], "parameters": {"binary_data_output": True}}, struct.pack("<2q", 1, -1)),
        ({"inputs": [image]}, struct.pack("<I", len(picture)) + picture),
        ({"inputs": [coded]}, b""),
        ({"inputs": [text], "outputs": [{"name": "found"}]}, b""),
    ]
    made = []
    for head, behind in heads:
        body = json.dumps(head).encode()
        made.append(struct.pack("<I", len(body) if behind else 0) + body + behind)
    return made


@contextmanager
def requests() -> Iterator[Any]:
    def one(number: int, data: bytes) -> str:
        size = int.from_bytes(data[:4], "little")
        try:
            head, given = read(data[4:], str(size) if size else None, MOST)
            if not any(isinstance(value, list) for value in given.values()):
                check(SPECS, given)
            for value in given.values():
                for element in value if isinstance(value, list) else ():
                    sample_of("image" if "image" in given else "text", element)
            body, _ = written({"model_name": "m"}, given, head)
        except (InputError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            assert "\n" not in str(error) and len(str(error)) < 1000, str(error)
            return "refused"
        assert body
        return "taken"

    yield one


def host_seeds() -> list[bytes]:
    """A command, and the words of a host."""
    return [
        request([REBIRTH, "x"]),
        request([REBIRTH], value=False),
        b'{"online":true,"timestamp":1700000000000}',
        b"ONLINE",
    ]


@contextmanager
def hosts() -> Iterator[Any]:
    def one(number: int, data: bytes) -> str:
        for name in (host := Host("scada")).filters:
            host.hear(name, data)
        try:
            return "taken" if asked(data) or host.online else "nothing"
        except ValueError:
            return "refused"

    yield one
