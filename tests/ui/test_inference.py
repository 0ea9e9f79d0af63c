"""The Open Inference Protocol v2 over HTTP, against its published schema, tritonclient, and strangers."""

from __future__ import annotations

import base64
import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("uvicorn", reason="the extra [page] is not installed")
pytest.importorskip("prometheus_client", reason="the extra [page] is not installed")

import numpy as np

from edge_agent import config
from edge_agent.config import parse
from edge_agent.errors import ConfigError
from edge_agent.manifest import Served
from edge_agent.pictures.read import read_picture
from edge_agent.serving.models import Models
from edge_agent.tasks import make_task
from edge_agent.types import Detections, Finding
from edge_agent.ui import inference
from edge_agent.ui.server import Page
from edge_agent.ui.tensors import HEADER, read
from edge_agent.uri import Uri
from tests.broker import free_port, until
from tests.conftest import ROOT, lines_of
from tests.ui.serving import Answer, ask, page

YOLO, TAGGER = "/v2/models/edge-yolo", "/v2/models/edge-tagger"
PICTURE = ROOT / "deploy" / "demo" / "coffee.png"
SCHEMA = ROOT.parent / "shared" / "schemas" / "open_inference_rest.yaml"


@contextmanager
def serving(folder: Path, models: Models, **settings: Any) -> Iterator[Page]:
    made = Page(config.Page(**{"listen": "127.0.0.1:0", **settings}), folder / "page", own=models)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    """A detector and a tagger, open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_AGENT_HOME", str(tmp_path_factory.mktemp("home")))
        made = Models(threads=1, soon=True)
        made.serve("edge-yolo")
        made.serve("edge-tagger")
        yield made


@pytest.fixture(scope="module")
def served(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with serving(tmp_path_factory.mktemp("served"), models) as made:
        yield made


def picture(models: Models) -> tuple[Served, Any]:
    """The detector, and an input for its network."""
    yolo = models.serve("edge-yolo")
    (spec,) = yolo.net.inputs
    return yolo, np.random.default_rng(7).random([axis or 1 for axis in spec.shape], np.float32)


def tensor(name: str, array: Any, datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": array.ravel().tolist(), **more}


def infer(served: Page, of: str, head: dict[str, Any], behind: bytes | None = None, **headers: str) -> Answer:
    """One request, the bytes behind its JSON."""
    body = json.dumps(head).encode()
    if behind is None:
        return ask(served, "POST", f"{of}/infer", body, **headers)
    return ask(served, "POST", f"{of}/infer", body + behind, **{HEADER.replace("-", "_"): str(len(body))}, **headers)


def outputs(answer: Answer) -> dict[str, Any]:
    """Name -> array, or list of bytes, however they came."""
    assert answer.status == 200, answer.body[:300]
    size = int(answer.headers.get(HEADER.lower(), len(answer.body)))
    head, rest = json.loads(answer.body[:size]), answer.body[size:]
    found: dict[str, Any] = {}
    for one in head["outputs"]:
        if "data" in one:
            found[one["name"]] = np.array(one["data"]).reshape(one["shape"])
            continue
        own, rest = rest[: one["parameters"]["binary_data_size"]], rest[one["parameters"]["binary_data_size"] :]
        if one["datatype"] == "BYTES":
            parts = []
            while own:
                end = 4 + struct.unpack("<I", own[:4])[0]
                parts.append(own[4:end])
                own = own[end:]
            found[one["name"]] = parts
        else:
            found[one["name"]] = np.frombuffer(own, "<f4").reshape(one["shape"])
    assert not rest
    return found


# ── what there is ────────────────────────────────────────────────────────────────────────────────────────────


KINDS: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "integer": int, "number": int | float, "boolean": bool
}  # fmt: skip


def fits(schema: dict[str, Any], value: Any, schemas: dict[str, Any]) -> bool:
    """Whether a value is what a part of an OpenAPI schema says, as far as this one goes."""
    if "$ref" in schema:
        return fits(schemas[schema["$ref"].rpartition("/")[2]], value, schemas)
    if "anyOf" in schema:
        return any(fits(one, value, schemas) for one in schema["anyOf"])
    if not isinstance(value, KINDS[schema["type"]]):
        return False
    if isinstance(value, list):
        return all(fits(schema["items"], one, schemas) for one in value[:50])
    known, more = schema.get("properties", {}), schema.get("additionalProperties")
    inside = {name: known.get(name, more) for name in value} if isinstance(value, dict) else {}
    if not set(schema.get("required", ())) <= inside.keys():
        return False
    return all(fits(one, value[name], schemas) for name, one in inside.items() if one)


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    if not SCHEMA.is_file():
        pytest.skip(f"the protocol's description is not at {SCHEMA}")
    found: dict[str, Any] = yaml.safe_load(SCHEMA.read_text())["components"]["schemas"]
    return found


def test_answers_are_what_the_protocol_describes(served: Page, models: Models, schemas: dict[str, Any]) -> None:
    yolo, array = picture(models)
    name = yolo.net.inputs[0].name
    told = {
        "metadata_server_response": ask(served, "GET", "/v2").json,
        "metadata_model_response": ask(served, "GET", f"{YOLO}/versions/{yolo.ref.version}").json,
        "inference_request": {"inputs": [tensor(name, array)]},
        "inference_response": infer(served, YOLO, {"id": "42", "inputs": [tensor(name, array)]}).json,
        "inference_error_response": infer(served, YOLO, {"inputs": []}).json,
        "metadata_model_error_response": ask(served, "GET", "/v2/models/none").json,
    }
    for kind, value in told.items():
        assert fits(schemas[kind], value, schemas), (kind, str(value)[:300])
        assert not fits(schemas[kind], [], schemas)
    assert set(told["inference_error_response"]) == {"error"}


def test_what_there_is_is_said(served: Page, models: Models) -> None:
    yolo = models.serve("edge-yolo")
    assert ask(served, "GET", "/v2/health/live").status == ask(served, "GET", "/v2/health/ready").status == 200
    about = ask(served, "GET", YOLO).json
    assert about["versions"] == [yolo.ref.version] and about["platform"] == "onnxruntime_onnx"
    assert [one["name"] for one in about["outputs"]] == [spec.name for spec in yolo.net.outputs]
    assert about["properties"]["bytes_input"] == "image" and about["properties"]["licence"] == "Apache-2.0"
    assert ask(served, "GET", TAGGER).json["properties"]["bytes_input"] == "text"
    for path, status in ((f"{YOLO}/ready", 200), (f"{YOLO}/versions/99/ready", 404), ("/v2/models/none/ready", 404)):
        assert ask(served, "GET", path).status == status
    index = ask(served, "POST", "/v2/repository/index", {}).json
    assert [(one["name"], one["state"]) for one in index] == [("edge-tagger", "READY"), ("edge-yolo", "READY")]
    assert "/v2/models/{name}/infer" in ask(served, "GET", "/api/v1/openapi.json").json["paths"]


def test_nothing_is_ready_before_there_is_an_agent(tmp_path: Path) -> None:
    with page(tmp_path) as made:
        assert ask(made, "GET", "/v2/health/live").status == 200
        assert ask(made, "GET", "/v2/health/ready").status == 503
        assert ask(made, "GET", YOLO).status == 503


# ── tensors ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_tensors_come_and_go_as_json_and_as_bytes(
    served: Page, models: Models, binary_in: bool, binary_out: bool
) -> None:
    yolo, array = picture(models)
    given = tensor(yolo.net.inputs[0].name, array)
    behind = None
    if binary_in:
        behind = array.astype("<f4").tobytes()
        given = {**given, "parameters": {"binary_data_size": len(behind)}}
        del given["data"]
    head = {"inputs": [given], "parameters": {"binary_data_output": binary_out}}
    found = outputs(infer(served, YOLO, head, behind))
    expected = yolo.net.run({yolo.net.inputs[0].name: array})
    assert list(found) == [spec.name for spec in yolo.net.outputs]
    for name, values in found.items():
        assert np.allclose(values, expected[name], atol=1e-4)


def test_outputs_are_those_that_are_asked_for_and_as_each_is(served: Page, models: Models) -> None:
    yolo, array = picture(models)
    first, second = (spec.name for spec in yolo.net.outputs)
    given, wanted = tensor(yolo.net.inputs[0].name, array), {"name": second, "parameters": {"binary_data": True}}
    answer = infer(served, YOLO, {"id": "seven", "inputs": [given], "outputs": [wanted, {"name": first}]})
    told = json.loads(answer.body[: int(answer.headers[HEADER.lower()])])
    assert told["id"] == "seven" and told["model_name"] == "edge-yolo"
    assert [(one["name"], "data" in one) for one in told["outputs"]] == [(second, False), (first, True)]
    nested = {**given, "data": array.tolist()}
    assert np.allclose(outputs(infer(served, YOLO, {"inputs": [nested]}))[first], outputs(answer)[first])


def test_tensors_of_bytes_may_be_written_to_as_some_engines_ask_for(models: Models) -> None:
    one = {"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
    head = json.dumps({"inputs": [one]}).encode()
    value = read(head + struct.pack("<2f", 0.5, -1.0), str(len(head)), 1000)[1]["x"]
    assert isinstance(value, np.ndarray) and value.flags.writeable and value.tolist() == [0.5, -1.0]


def test_numbers_that_json_cannot_hold_are_not_made_up(served: Page, models: Models) -> None:
    yolo, array = picture(models)
    head = {"inputs": [tensor(yolo.net.inputs[0].name, array, parameters={"binary_data_size": array.nbytes})]}
    del head["inputs"][0]["data"]
    broken = np.full_like(array, np.nan).tobytes()
    answer = infer(served, YOLO, head, broken)
    assert answer.status == 400 and "not finite; ask for it as binary_data" in answer.json["error"]
    found = outputs(infer(served, YOLO, {**head, "parameters": {"binary_data_output": True}}, broken))
    assert any(np.isnan(values).any() for values in found.values())


# ── pictures and texts ───────────────────────────────────────────────────────────────────────────────────────


def found(answer: Answer) -> list[Any]:
    assert answer.status == 200, answer.body[:300]
    return [json.loads(one) for one in outputs(answer)["found"]]


def as_bytes(name: str, *elements: bytes, shape: list[int] | None = None) -> tuple[dict[str, Any], bytes]:
    behind = b"".join(struct.pack("<I", len(one)) + one for one in elements)
    size = {"binary_data_size": len(behind)}
    return {"name": name, "datatype": "BYTES", "shape": shape or [len(elements)], "parameters": size}, behind


def test_a_picture_comes_back_as_what_is_in_it(served: Page, models: Models) -> None:
    given, behind = as_bytes("image", PICTURE.read_bytes(), PICTURE.read_bytes())
    one, other = found(infer(served, YOLO, {"inputs": [given]}, behind))
    assert one == other
    task = make_task(Uri("detect", "edge-yolo", {}), models.serve, ROOT)
    (expected,) = task(read_picture(PICTURE))
    assert isinstance(expected, Finding) and isinstance(expected.what, Detections)
    what = expected.what
    assert [box["label"] for box in one["detections"]] == [what.names[int(label)] for label in what.label]
    assert np.allclose([box["box"] for box in one["detections"]], what.xyxy, atol=0.02)
    coded = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"content_type": "base64"},
             "data": [base64.b64encode(PICTURE.read_bytes()).decode()]}  # fmt: skip
    assert found(infer(served, YOLO, {"inputs": [coded]})) == [one]


def test_a_request_may_set_the_threshold_and_name_no_files(served: Page) -> None:
    given, behind = as_bytes("image", PICTURE.read_bytes())
    many = found(infer(served, YOLO, {"inputs": [given], "parameters": {"score": 0.05}}, behind))[0]["detections"]
    few = found(infer(served, YOLO, {"inputs": [given], "parameters": {"score": 0.6}}, behind))[0]["detections"]
    assert len(few) < len(many) and all(box["score"] >= 0.6 for box in few)
    wrong = infer(served, YOLO, {"inputs": [given], "parameters": {"score": "high"}}, behind)
    assert wrong.status == 400 and "score" in wrong.json["error"]
    text = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["Anna"]}
    hidden = {"labels": "/etc/passwd", "store": "x", "priority": 3}
    assert infer(served, TAGGER, {"inputs": [text], "parameters": hidden}).status == 200, "what is not known counts not"


def test_texts_come_back_as_what_is_said_in_them(served: Page) -> None:
    texts = ["Call Anna at nine", "Grüße aus Köln \U0001f600"]
    given = {"name": "text", "datatype": "BYTES", "shape": [2], "data": texts}
    rows = found(infer(served, TAGGER, {"inputs": [given], "outputs": [{"name": "found"}]}))
    assert [row["text"] for row in rows] == texts
    assert {span["label"] for span in rows[0]["spans"]} >= {"time"}
    binary, behind = as_bytes("text", *(text.encode() for text in texts))
    assert found(infer(served, TAGGER, {"inputs": [binary]}, behind)) == rows


def test_sound_comes_back_as_what_is_said(whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(whisper))
    heard = Models(threads=1)
    heard.serve("whisper-tiny")
    at, wav = "/v2/models/whisper-tiny", (ROOT / "deploy" / "demo" / "speech" / "light.wav").read_bytes()
    with serving(tmp_path, heard) as made:
        assert ask(made, "GET", at).json["properties"]["bytes_input"] == "sound"
        given, behind = as_bytes("sound", wav)
        (row,) = found(infer(made, at, {"inputs": [given]}, behind))
        assert "light" in row["text"] and row["heard"]["engine"].startswith("whisper-tiny")
        for broken, says in ((b"RIFFnonsense", "is no WAV file"), (wav[:44], "holds no sound"), (b"", "is empty")):
            given, behind = as_bytes("sound", broken)
            answer = infer(made, at, {"inputs": [given]}, behind)
            assert answer.status == 400 and says in answer.json["error"], answer.body


# ── what strangers send ──────────────────────────────────────────────────────────────────────────────────────


def huge_png() -> bytes:
    """One of 60,000 x 60,000 pixels, by its header."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + bytes(100)


ONE = {"name": "images", "datatype": "FP32", "shape": [1], "data": [1.0]}
TEXT = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["x"]}


@pytest.mark.parametrize(
    ("of", "given", "says"),
    [
        (YOLO, [], "inputs"),
        (YOLO, [ONE] * 2, '"images" stands twice'),
        (YOLO, [{**ONE, "name": "x"}], 'no input "x"'),
        (YOLO, [ONE], 'input "images" takes FP32 of [1, 3'),
        (YOLO, [{**ONE, "datatype": "FP8"}], "no datatype FP8"),
        (YOLO, [{**ONE, "data": [1, 2]}], "2 numbers are no tensor of [1]"),
        (YOLO, [{**ONE, "shape": [2], "data": [[1], [2, 3]]}], "rows of different lengths"),
        (YOLO, [{**ONE, "data": ["1"]}], "no numbers of FP32"),
        (YOLO, [{**ONE, "data": [None]}], "no numbers of FP32"),
        (YOLO, [{**ONE, "data": {"a": 1}}], "no numbers of FP32"),
        (YOLO, [{**ONE, "data": [10**400]}], ""),
        (YOLO, [{**ONE, "datatype": "UINT8", "data": [256]}], "out of the range of UINT8"),
        (YOLO, [{**ONE, "datatype": "INT64", "data": [0.5]}], "no numbers of INT64"),
        (YOLO, [{**ONE, "shape": [-1]}], "shape"),
        (YOLO, [{**ONE, "shape": [2**60]}], "shape"),
        (YOLO, [{**ONE, "shape": [1] * 40}], "shape"),
        (YOLO, [{key: ONE[key] for key in ("name", "datatype", "shape")}], "neither data nor binary_data_size"),
        (YOLO, [{**ONE, "parameters": {"binary_data_size": 4}}], "0 bytes are there"),
        (YOLO, [{**ONE, "parameters": {"binary_data_size": "4"}}], "0 bytes are there"),
        (YOLO, [TEXT], 'edge-yolo takes no "text", but image'),
        (TAGGER, [{**TEXT, "name": "image", "data": ["x"]}], 'edge-tagger takes no "image", but text'),
        (TAGGER, [{**TEXT, "name": "words"}], 'BYTES are one input "image", "text" or "sound"'),
        (TAGGER, [TEXT, ONE], "none beside it"),
        (TAGGER, [{**TEXT, "data": [""]}], "a text has 1 to"),
        (TAGGER, [{**TEXT, "data": ["x" * 30_000]}], "a text has 1 to"),
        (TAGGER, [{**TEXT, "data": [5]}], "BYTES as JSON are texts"),
        (TAGGER, [{**TEXT, "shape": [2]}], "1 elements are no tensor of [2]"),
        (TAGGER, [{**TEXT, "shape": [100], "data": ["x"] * 100}], "at most 16 at once"),
        (YOLO, [{**TEXT, "name": "image", "parameters": {"content_type": "base64"}, "data": ["?"]}], "no base64"),
    ],
)  # fmt: skip
def test_a_request_that_makes_no_sense_is_told_in_one_line(served: Page, of: str, given: list[Any], says: str) -> None:
    answer = infer(served, of, {"inputs": given})
    assert answer.status == 400 and says in answer.json["error"] and "\n" not in answer.json["error"]


def test_bytes_that_lie_are_refused(served: Page, models: Models) -> None:
    yolo, array = picture(models)
    one = {"name": yolo.net.inputs[0].name, "datatype": "FP32", "shape": list(array.shape)}
    text = {**one, "datatype": "BYTES"}
    sized = {**one, "parameters": {"binary_data_size": array.nbytes}}
    for head, behind, says in (
        ({"inputs": [sized]}, array.tobytes() + b"more", "4 bytes behind the last tensor"),
        ({"inputs": [sized]}, array.tobytes()[:-1], "bytes are there"),
        ({"inputs": [{**one, "parameters": {"binary_data_size": 8}}]}, bytes(8), "are no FP32 of"),
        ({"inputs": [{**text, "parameters": {"binary_data_size": 3}}]}, b"\1\0\0", "cut off"),
        ({"inputs": [{**text, "parameters": {"binary_data_size": 5}}]}, b"\xff\xff\xff\x7fx", "cut off"),
        ({"inputs": [{**sized, "shape": [1, 3, 0, 0], "parameters": {"binary_data_size": 0}}]}, b"", "takes FP32 of"),
    ):
        answer = infer(served, YOLO, head, behind)
        assert answer.status == 400 and says in answer.json["error"], answer.json
    for length in ("-1", "x", "99999999", "\u00b2".encode().decode("latin-1"), "9" * 5000):
        answer = ask(served, "POST", f"{YOLO}/infer", b"{}", **{HEADER.replace("-", "_"): length})
        assert answer.status == 400, answer.body


def test_pictures_that_are_none_are_refused(served: Page) -> None:
    for data in (b"", b"GIF89a", PICTURE.read_bytes()[:500], b"\xff\xd8\xff" + bytes(1000), huge_png()):
        given, behind = as_bytes("image", data)
        answer = infer(served, YOLO, {"inputs": [given]}, behind)
        assert answer.status == 400 and 0 < len(answer.json["error"]) < 300


def head_of(length: int) -> bytes:
    return f"POST {YOLO}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode()


def test_what_is_no_request_is_refused(served: Page) -> None:
    for body in (b"", b"null", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"inputs":' + b"[" * 100_000):
        assert ask(served, "POST", f"{YOLO}/infer", body).status == 400
    deep = b'{"inputs":[{"name":"images","datatype":"FP32","shape":[1],"data":' + b"[" * 50_000 + b"]" * 50_000 + b"}]}"
    assert ask(served, "POST", f"{YOLO}/infer", deep).status == 400
    assert ask(served, "POST", f"{YOLO}/infer", b"x" * (inference.MOST + 1)).status == 413
    with socket.create_connection(("127.0.0.1", served.port), 20) as wire:
        wire.sendall(head_of(inference.MOST + 1))
        assert b" 413 " in wire.recv(1000), "though not a byte of it comes"
    packed = ask(served, "POST", f"{YOLO}/infer", b"{}", content_encoding="gzip")
    assert packed.status == 415
    wide = infer(served, YOLO, {"inputs": [ONE], "parameters": {"x": "y" * (inference.MOST_JSON + 1)}})
    assert wide.status == 400 and "send tensors as binary_data" in wide.json["error"]


def test_a_run_that_fails_says_so_and_not_where_files_lie(served: Page, models: Models) -> None:
    """Words that the vocabulary does not have."""
    tagger = models.serve("edge-tagger")
    inputs = []
    for spec in tagger.net.inputs:
        array = np.full([axis or 8 for axis in spec.shape], 2**30 if "mask" not in spec.name else 1, spec.dtype)
        inputs.append(tensor(spec.name, array, {"int64": "INT64", "int32": "INT32"}[spec.dtype]))
    answer = infer(served, TAGGER, {"inputs": inputs})
    assert answer.status == 400 and "the run failed" in answer.json["error"]
    assert "/" not in answer.json["error"].replace("/v2", "").partition("(")[0]


# ── turns, limits and accounts ───────────────────────────────────────────────────────────────────────────────


def test_a_request_waits_for_its_turn_and_not_for_ever(tmp_path: Path, models: Models) -> None:
    given, behind = as_bytes("image", PICTURE.read_bytes())
    section = config.Inference(priority=3, share=0.25, deadline_ms=1500)
    agent = SimpleNamespace(config=SimpleNamespace(inference=section), swap=SimpleNamespace(models=models))
    with page(tmp_path) as made:
        made.agent = cast(Any, agent)
        assert made.inference is not None
        before = made.inference.client.used
        assert infer(made, YOLO, {"inputs": [given]}, behind).status == 200
        client = made.inference.client
        assert (client.priority, client.share, client.used > before) == (3, 0.25, True)
        with models.lane.turn(models.lane.cores):
            late = infer(made, YOLO, {"inputs": [given]}, behind)
        assert late.status == 503 and "no turn on the processor within 1500 ms" in late.json["error"]
        assert late.headers["retry-after"] == "1"
        assert infer(made, YOLO, {"inputs": [given]}, behind).status == 200
        account = made.inference.accounts["edge-yolo"]
        until(lambda: (account.answered, account.refused, sum(account.took.counts)) == (2, 1, 2), "all are counted")


def test_more_than_there_is_room_for_are_told_to_come_again(served: Page, models: Models) -> None:
    given, behind = as_bytes("image", PICTURE.read_bytes())
    with ThreadPoolExecutor(40) as pool:
        lane = models.lane.turn(models.lane.cores)
        lane.__enter__()
        try:
            asked = [pool.submit(infer, served, YOLO, {"inputs": [given]}, behind) for _ in range(40)]
            until(lambda: sum(one.done() for one in asked) >= 40 - inference.WAITING, "the rest is refused")
        finally:
            lane.__exit__(None, None, None)
        statuses = [one.result().status for one in asked]
    assert statuses.count(503) == 40 - inference.WAITING and statuses.count(200) == inference.WAITING


def test_requests_to_several_models_at_once_are_each_answered_right(served: Page) -> None:
    given, behind = as_bytes("image", PICTURE.read_bytes())
    alone = found(infer(served, YOLO, {"inputs": [given]}, behind))
    text = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["Call Anna at nine"]}
    tagged = found(infer(served, TAGGER, {"inputs": [text]}))

    def one(number: int) -> bool:
        if number % 2:
            return found(infer(served, TAGGER, {"inputs": [text]})) == tagged
        return found(infer(served, YOLO, {"inputs": [given]}, behind)) == alone

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(one, range(24)))


def test_who_may_look_may_not_run_models(tmp_path: Path, models: Models) -> None:
    (tmp_path / "word").write_text("a long password")
    with serving(tmp_path, models, password_file=str(tmp_path / "word")) as made:
        assert ask(made, "GET", "/v2/health/ready").status == 200
        assert ask(made, "GET", YOLO).status == infer(made, YOLO, {"inputs": [ONE]}).status == 401
        for role, status in (("viewer", 403), ("operator", 400)):
            token = made.access.make_token(role, cast(Any, role))
            assert ask(made, "GET", YOLO, authorization=f"Bearer {token}").status == 200
            assert infer(made, YOLO, {"inputs": [ONE]}, authorization=f"Bearer {token}").status == status


def test_replicas_take_one_token_and_the_name_of_their_balancer(tmp_path: Path, models: Models) -> None:
    (tmp_path / "token").write_text("0123456789abcdef" * 2)
    (tmp_path / "short").write_text("0123456789abcdef")
    for place in ("one", "other"):
        with serving(tmp_path / place, models, password_file=str(tmp_path / "token"), names=["models.example"]) as made:
            made.access.share(str(tmp_path / "token"), "--token-file")
            with pytest.raises(ConfigError, match=r"--token-file: .*short: a token has 32 characters"):
                made.access.share(str(tmp_path / "short"), "--token-file")
            proxied = {"host": "models.example", "x_forwarded_for": "192.0.2.7"}
            assert ask(made, "GET", YOLO, **proxied).status == 401
            assert ask(made, "GET", YOLO, authorization=f"Bearer {'0123456789abcdef' * 2}", **proxied).status == 200
            assert ask(made, "GET", YOLO, host="elsewhere.example").status == 421


def test_one_that_leaves_says_so_and_answers_until_nobody_asks(
    tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "REST_S", 0.5)
    given, behind = as_bytes("image", PICTURE.read_bytes())
    with serving(tmp_path, models) as made, ThreadPoolExecutor(1) as pool:
        pool.submit(made.inference.leave).result(30)  # at once, as nobody has asked
        made.inference.leaving.clear()
        assert infer(made, YOLO, {"inputs": [given]}, behind).status == 200
        leaving = pool.submit(made.inference.leave)
        until(lambda: ask(made, "GET", "/v2/health/ready").status == 503, "a balancer hears of it")
        assert infer(made, YOLO, {"inputs": [given]}, behind).status == 200
        leaving.result(30)


def test_requests_are_counted_for_prometheus(served: Page) -> None:
    given, behind = as_bytes("image", PICTURE.read_bytes())
    infer(served, YOLO, {"inputs": [given]}, behind)
    told = ask(served, "GET", "/metrics").body.decode()
    assert 'edge_agent_inference_requests_total{model="edge-yolo",outcome="answered"}' in told
    assert "edge_agent_inference_core_seconds_total" in told and "edge_agent_inference_seconds_bucket" in told


def test_the_models_of_pipelines_serve_requests_too_and_are_opened_once(tmp_path: Path) -> None:
    from edge_agent.agent.agent import Agent

    (tmp_path / "words.txt").write_text("Call Anna at nine\n")
    loaded = parse(
        f'[device]\nid = "porch"\n[store]\npath = "{tmp_path}/store"\n[inference]\nshare = 2\n'
        f'[[pipeline]]\nname = "words"\nsource = "lines:{tmp_path}/words.txt"\ntasks = ["tag:edge-tagger"]\n'
    )
    agent, stop = Agent(loaded), threading.Event()
    thread = threading.Thread(target=agent.run, args=(stop,))
    with page(tmp_path) as made:
        made.show(agent)
        thread.start()
        try:
            assert ask(made, "GET", "/v2/health/ready").status == 200
            rows = found(infer(made, TAGGER, {"inputs": [{**TEXT, "data": ["Call Anna at nine"]}]}))
            until(lambda: agent.outbox.counts.put, "the pipeline has its own")
            assert rows[0]["spans"]
            assert list(agent.swap.models.open_now()) == ["edge-tagger"]
            assert made.inference is not None and made.inference.client.share == 2
        finally:
            stop.set()
            thread.join(120)


def test_the_section_is_checked() -> None:
    rest = '[[pipeline]]\nname = "p"\nsource = "lines:-"\n'
    assert parse(f"[inference]\npriority = 9\n{rest}").inference == config.Inference(priority=9)
    for line, says in (("priority = 10", "inference.priority"), ("prio = 1", 'did you mean "priority"')):
        with pytest.raises(ConfigError, match=says):
            parse(f"[inference]\n{line}\n{rest}")


# ── the verb, and the client that people use ─────────────────────────────────────────────────────────────────


def serve(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edge_agent", "serve", *arguments], stderr=subprocess.PIPE, text=True
    )


def test_serve_needs_no_config(models: Models) -> None:
    port = free_port()
    running = serve("edge-tagger", "--listen", f"127.0.0.1:{port}")
    at = cast(Any, SimpleNamespace(port=port))
    try:
        until(lambda: _status(at) == 200, "it serves")
        assert found(infer(at, TAGGER, {"inputs": [{**TEXT, "data": ["Call Anna at nine"]}]}))[0]["spans"]
        assert ask(at, "GET", "/").status == 404, "and nothing else of the page"
        second = subprocess.run(
            [sys.executable, "-m", "edge_agent", "serve", "edge-tagger", "--listen", f"127.0.0.1:{port}"],
            capture_output=True, text=True,
        )  # fmt: skip
        assert second.returncode == 2 and "another program listens there" in second.stderr
        running.send_signal(signal.SIGINT)
        assert running.wait(120) == 0
        assert running.stderr is not None
        said = lines_of(running.stderr.read())
        assert said[0].startswith("edge-tagger 1: ") and f"127.0.0.1:{port}/v2/models/edge-tagger" in said[-1]
    finally:
        running.kill()


def _status(at: Any) -> int:
    try:
        return ask(at, "GET", "/v2/health/ready").status
    except OSError:
        return 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["none-such"], 1, "none-such"),
        (["edge-tagger", "--listen", "0.0.0.0:1"], 2, "0.0.0.0 can be reached by others"),
        (["edge-tagger", "--listen", "8484"], 2, "HOST:PORT"),
        ([], 2, "model"),
    ],
)
def test_a_wrong_use_of_serve_is_told_in_one_line(arguments: list[str], code: int, says: str, models: Models) -> None:
    running = serve(*arguments)
    _, stderr = running.communicate(timeout=180)
    assert running.returncode == code and says in stderr and "Traceback" not in stderr


def test_tritonclient_gets_what_we_get(served: Page, models: Models) -> None:
    """The client that people use, in an environment of its own: EDGE_AGENT_TRITONCLIENT names its Python."""
    python = os.environ.get("EDGE_AGENT_TRITONCLIENT")
    if not python:
        pytest.skip("set EDGE_AGENT_TRITONCLIENT to the Python of an environment with tritonclient[http]")
    code = (
        "import json, sys\n"
        "import numpy as np\n"
        "import tritonclient.http as http\n"
        "client = http.InferenceServerClient(sys.argv[1])\n"
        "assert client.is_server_live() and client.is_server_ready() and client.is_model_ready('edge-yolo')\n"
        "assert not client.is_model_ready('none') and client.get_server_metadata()['name'] == 'edge-agent'\n"
        "assert {one['name'] for one in client.get_model_repository_index()} == {'edge-yolo', 'edge-tagger'}\n"
        "about = client.get_model_metadata('edge-yolo')\n"
        "spec = about['inputs'][0]\n"
        "array = np.random.default_rng(7).random(spec['shape'], np.float32)\n"
        "told = []\n"
        "for binary in (True, False):\n"
        "    given = http.InferInput(spec['name'], spec['shape'], spec['datatype'])\n"
        "    given.set_data_from_numpy(array, binary_data=binary)\n"
        "    wanted = [http.InferRequestedOutput(one['name'], binary_data=binary) for one in about['outputs']]\n"
        "    result = client.infer('edge-yolo', [given], outputs=wanted, request_id='7')\n"
        "    assert result.get_response()['id'] == '7'\n"
        "    told.append([float(result.as_numpy(one['name']).sum()) for one in about['outputs']])\n"
        "given = http.InferInput('image', [1], 'BYTES')\n"
        "given.set_data_from_numpy(np.array([open(sys.argv[2], 'rb').read()], dtype=object))\n"
        "boxes = json.loads(client.infer('edge-yolo', [given]).as_numpy('found')[0])\n"
        "given = http.InferInput('text', [1], 'BYTES')\n"
        "given.set_data_from_numpy(np.array(['Call Anna at nine'], dtype=object), binary_data=False)\n"
        "spans = json.loads(client.infer('edge-tagger', [given]).as_numpy('found')[0])\n"
        "try:\n"
        "    client.infer('none', [given])\n"
        "except http.InferenceServerException as error:\n"
        "    wrong = str(error)\n"
        "print(json.dumps([told, boxes, spans, wrong]))\n"
    )
    done = subprocess.run(
        [python, "-c", code, f"127.0.0.1:{served.port}", str(PICTURE)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told, boxes, spans, wrong = json.loads(done.stdout)
    yolo, array = picture(models)
    expected = yolo.net.run({yolo.net.inputs[0].name: array})
    sums = [float(np.asarray(expected[spec.name]).sum()) for spec in yolo.net.outputs]
    assert all(math.isclose(a, b, rel_tol=1e-3) for row in told for a, b in zip(row, sums, strict=True))
    given, behind = as_bytes("image", PICTURE.read_bytes())
    assert [boxes] == found(infer(served, YOLO, {"inputs": [given]}, behind))
    assert spans["text"] == "Call Anna at nine" and 'no model "none" serves here' in wrong


def test_a_slow_client_holds_nobody_up(served: Page) -> None:
    given, behind = as_bytes("image", PICTURE.read_bytes())
    with socket.create_connection(("127.0.0.1", served.port)) as wire:
        wire.sendall(head_of(1000))
        assert infer(served, YOLO, {"inputs": [given]}, behind).status == 200
