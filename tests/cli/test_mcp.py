"""`edge-agent mcp`, asked by the official client and by hand: only what the config shows is seen."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edge_agent.archive.archive import NAME, Archive
from tests.archive.made import event
from tests.cli.test_cli import run

JPEG = b"\xff\xd8 a picture \xff\xd9"
CONFIG = """
[store]
path = "store"
{more}
[[pipeline]]
name = "gate"
source = "lines:-"
[[pipeline]]
name = "bedroom"
source = "lines:-"
"""
ALL = '[archive]\n[mcp]\npipelines = ["gate"]\nsnapshots = true'


def config(folder: Path, more: str = ALL) -> str:
    """A config with an archive: a car with a picture at the gate, and a text of the bedroom."""
    path, now = folder / "agent.toml", time.time() - 60
    path.write_text(CONFIG.format(more=more))
    archive = Archive(folder / "store" / NAME)
    pictured = {"snapshot": "0123abcd-1.jpg"}
    archive.add([event(1, "object", now, "gate", label="car", entered=["drive"], zones=["drive"], **pictured)])
    archive.add([event(2, text="private words", at=now, pipeline="bedroom")])
    archive.add([event(3, "object", now, "gate", label="dog", snapshot="../secret.jpg")])
    archive.close()
    (folder / "store" / "pictures").mkdir()
    (folder / "store" / "pictures" / "0123abcd-1.jpg").write_bytes(JPEG)
    (folder / "store" / "secret.jpg").write_bytes(b"secret")
    return str(path)


def asked(folder: Path, *messages: object, more: str = ALL) -> list[dict[str, Any]]:
    """The replies to messages, of one run of the verb."""
    lines = "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in messages)
    command = [sys.executable, "-m", "edge_agent", "mcp", "-c", config(folder, more), "--encoder", "edge-bert"]
    env = {"PATH": "/usr/bin:/bin", "EDGE_AGENT_HOME": str(folder / "home"), "HOME": str(folder)}
    done = subprocess.run(command, input=lines, capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def call(id: int, tool: str, **arguments: object) -> dict[str, object]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}


def test_the_official_client_lists_and_calls_the_tools(tmp_path: Path) -> None:
    mcp = pytest.importorskip("mcp", reason="the official client is not installed: pip install mcp")
    client = pytest.importorskip("mcp.client.stdio", reason="the official client is not installed: pip install mcp")
    args = ["-m", "edge_agent", "mcp", "-c", config(tmp_path), "--encoder", "edge-bert"]
    env = {"EDGE_AGENT_HOME": str(tmp_path / "home")}
    server = mcp.StdioServerParameters(command=sys.executable, args=args, env=env)

    async def talk() -> tuple[set[str], list[Any]]:
        async with client.stdio_client(server) as (read, write), mcp.ClientSession(read, write) as session:
            await session.initialize()
            names = {tool.name for tool in (await session.list_tools()).tools}
            calls = [
                ("search", {"question": "a vehicle in the last hour"}),
                ("events", {"after": 0}),
                ("snapshot", {"number": 1}),
                ("state", {}),
                ("events", {"pipeline": "bedroom"}),
            ]
            return names, [await session.call_tool(name, arguments) for name, arguments in calls]

    with ThreadPoolExecutor(1) as pool:  # another test may have left a loop running on this thread, as browsers do
        names, results = pool.submit(lambda: asyncio.run(asyncio.wait_for(talk(), 120))).result()
    assert names == {"search", "events", "snapshot", "state"}
    told = [result.model_dump(by_alias=True) for result in results]
    found = json.loads(told[0]["content"][0]["text"])["found"]
    assert found[0]["says"] == "car comes into view, enters drive"
    assert [one["number"] for one in json.loads(told[1]["content"][0]["text"])["events"]] == [1, 3]
    assert base64.b64decode(told[2]["content"][0]["data"]) == JPEG
    assert [one["pipeline"] for one in json.loads(told[3]["content"][0]["text"])["pipelines"]] == ["gate"]
    assert told[4]["isError"] and "may be seen" in told[4]["content"][0]["text"]


def test_nothing_is_seen_of_a_pipeline_that_is_not_named(tmp_path: Path) -> None:
    replies = asked(
        tmp_path,
        call(1, "search", question="private words"),
        call(2, "events", limit=200),
        call(3, "snapshot", number=2),
        call(4, "events", pipeline="bedroom"),
        call(5, "state"),
    )
    assert [one["id"] for one in replies] == [1, 2, 3, 4, 5]
    assert "private" not in json.dumps(replies) and "bedroom" not in json.dumps(replies)


def test_pictures_are_seen_only_where_the_config_says_so_and_only_those(tmp_path: Path) -> None:
    (reply,) = asked(tmp_path, call(1, "snapshot", number=3))
    assert reply["result"]["isError"] and "no picture of it" in reply["result"]["content"][0]["text"]
    (tmp_path / "other").mkdir()
    more = '[archive]\n[mcp]\npipelines = ["gate"]'
    (reply,) = asked(tmp_path / "other", call(1, "snapshot", number=1), more=more)
    assert "pictures may not be seen" in reply["result"]["content"][0]["text"]


def test_the_handshake_and_messages_that_are_wrong(tmp_path: Path) -> None:
    def request(number: object, method: str, **params: object) -> dict[str, object]:
        return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}

    replies = asked(
        tmp_path,
        request(1, "initialize", protocolVersion="2025-03-26"),
        request(2, "initialize", protocolVersion="1999-01-01"),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        request("three", "ping"),
        request(4, "tools/list"),
        request(5, "resources/list"),
        call(6, "delete"),
        call(7, "search"),
        call(8, "events", limit=100_000),
        call(9, "events", when="nonsense"),
        "{broken",
        "[" * 100_000,
        '{"jsonrpc": "1.0", "id": 1}',
        {"jsonrpc": "2.0", "id": 10, "result": {}},
    )
    assert [one.get("id") for one in replies] == [1, 2, "three", 4, 5, 6, 7, 8, 9, None, None, None]
    versions = [one["result"]["protocolVersion"] for one in replies[:2]]
    assert versions == ["2025-03-26", "2025-11-25"] and replies[2]["result"] == {}
    tools = {tool["name"]: tool for tool in replies[3]["result"]["tools"]}
    assert (
        tools["search"]["inputSchema"]["required"] == ["question"]
        and tools["search"]["inputSchema"]["type"] == "object"
    )
    assert all(tool["annotations"]["readOnlyHint"] for tool in tools.values())
    assert [one["error"]["code"] for one in (replies[4], replies[5], *replies[9:])] == [
        *(-32601, -32602),
        *(-32700, -32600, -32600),
    ]
    assert all(one["result"]["isError"] for one in replies[6:9])


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("[archive]", r"nothing may be seen; write [mcp]"),
        ('[mcp]\npipelines = ["gate"]', "mcp: there is no archive to look into; write [archive]"),
        ('[archive]\n[mcp]\npipelines = ["gat"]', 'mcp.pipelines: "gat" is none; did you mean "gate"?'),
        ("[archive]\n[mcp]\npipelines = []", "mcp.pipelines"),
    ],
)
def test_what_is_wrong_with_the_config_is_one_line(more: str, why: str, tmp_path: Path) -> None:
    out = run(tmp_path, "mcp", "-c", config(tmp_path, more))
    assert out.returncode == 2 and why in out.stderr and len(out.stderr.splitlines()) == 1 and not out.stdout
