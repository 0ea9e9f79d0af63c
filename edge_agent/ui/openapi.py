"""The API described: OpenAPI 3.1, made from the calls and their types."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from edge_agent import __version__
from edge_agent.ui.calls import Ask, Call

if TYPE_CHECKING:
    from edge_agent.ui.server import Page

REF = "#/components/schemas/{name}"


class Error(msgspec.Struct, frozen=True):
    """Why there is no answer."""

    error: str


def described(calls: Sequence[Call]) -> dict[str, Any]:
    """The document."""
    types = [each for call in calls for each in (call.takes, call.gives) if each is not None]
    schemas, parts = msgspec.json.schema_components([Error, *types], ref_template=REF)
    schema_of = dict(zip(map(repr, types), schemas[1:], strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "edge-agent", "version": __version__, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": parts,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "edge_agent_page"},
            },
        },
    }


def _operation(call: Call, schema_of: dict[str, dict[str, Any]]) -> dict[str, Any]:
    names = re.findall(r"{(\w+)", call.path)
    inside = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    asked = [
        {"name": name, "in": "query", "description": words, "schema": {"type": "string"}}
        for name, words in call.query.items()
    ]
    what: dict[str, Any] = schema_of[repr(call.gives)] if call.gives is not None else {}
    wrong = {"application/json": {"schema": schema_of.get("Error", {"$ref": REF.format(name="Error")})}}
    made: dict[str, Any] = {
        "operationId": _name(call),
        "summary": call.does,
        "security": [{"token": []}, {"cookie": []}] if call.role else [{}],
        "responses": {
            "200": {"description": call.does, "content": {call.media: {"schema": what}}},
            "default": {"description": "Why there is no answer.", "content": wrong},
        },
    }
    if call.role:
        made["description"] = f"For the role {call.role}."
    if inside or asked:
        made["parameters"] = [*inside, *asked]
    if call.takes is not None:
        content = {"application/json": {"schema": schema_of[repr(call.takes)]}}
        made["requestBody"] = {"required": True, "content": content}
    return made


def _name(call: Call) -> str:
    """A name of its own for each call: getEventsStream."""
    words = re.findall(r"[a-z0-9]+", call.path.removeprefix("/api/v1").lower()) or ["all"]
    words += ["slash"] * (call.path != "/" and call.path.endswith("/"))
    return call.method.lower() + "".join(map(str.capitalize, words))


def calls(page: Page) -> list[Call]:
    """The description itself."""

    def describe(ask: Ask) -> dict[str, Any]:
        return described(page.calls)

    return [Call("GET", "/api/v1/openapi.json", "", "This description.", describe, dict[str, Any])]
