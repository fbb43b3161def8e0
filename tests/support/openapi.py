"""Checks against the service's OpenAPI document: of responses, and of the document itself."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

JSON_TYPES = ("application/json", "application/problem+json")

TEXTS = ("description", "title", "summary", "version")
"""Keys of the document that no client depends on."""

RESTRICTIONS = frozenset(
    (
        *("required", "default", "const", "pattern", "additionalProperties", "minimum", "maximum"),
        *("exclusiveMinimum", "minLength", "maxLength", "minItems", "maxItems"),
    )
)


UPPER_BOUNDS = frozenset(("maximum", "maxLength", "maxItems"))

IN_REQUESTS = re.compile("Request|Form|Input")
"""Pattern of the components' names that only requests contain."""


class CheckedResponses:
    """ASGI middleware that validates each JSON response against the OpenAPI document."""

    def __init__(self, app: FastAPI) -> None:
        self.errors: list[str] = []
        self._app: ASGIApp = app
        self._document = app.openapi()
        self._validators: dict[str, jsonschema_rs.Validator] = {}
        self._paths = {
            re.compile(re.sub(r"\{\w+\}", "[^/]+", path)): operations
            for path, operations in self._document["paths"].items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: dict[str, Any] = {}
        body = bytearray()

        async def record(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            elif message["type"] == "http.response.body":
                body.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    self._check(scope, start, bytes(body))
            await send(message)

        await self._app(scope, receive, record)

    def _check(self, scope: Scope, start: dict[str, Any], body: bytes) -> None:
        headers = {name.lower(): value.decode() for name, value in start["headers"]}
        media_type = headers.get(b"content-type", "").partition(";")[0]
        path = scope["path"].removeprefix(scope.get("root_path", "").rstrip("/"))
        if media_type not in JSON_TYPES or path == "/openapi.json":
            return
        place = f"{scope['method']} {path}: {start['status']}"
        method = "get" if scope["method"] == "HEAD" else scope["method"].lower()
        try:
            schema = self._schema(path, method, str(start["status"]), media_type)
        except KeyError as error:
            self.errors.append(f"{place} {media_type}: {error} is not in the document")
            return
        if scope["method"] == "HEAD":
            return
        key = json.dumps(schema)
        if key not in self._validators:
            components = self._document["components"]
            self._validators[key] = jsonschema_rs.Draft202012Validator(
                {**schema, "components": components}
            )
        errors = self._validators[key].iter_errors(json.loads(body))
        self.errors += [f"{place}: {error.instance_path}: {error.message}" for error in errors]

    def _schema(self, path: str, method: str, status: str, media_type: str) -> Any:
        for template, operations in self._paths.items():
            if template.fullmatch(path) and method in operations:
                response = operations[method]["responses"][status]
                return response["content"][media_type]["schema"]
        if media_type == "application/problem+json":  # no such path or method
            return {"$ref": "#/components/schemas/Problem"}
        raise KeyError(path)


def incompatibilities(old: Any, new: Any) -> list[str]:
    """Return what a client of an old OpenAPI document would miss in a new one.

    Everything but texts must stay; new paths, components, properties and statuses may be added. An
    enumeration may be added where clients only read it, in responses; a maximum may be raised where
    they only write it, in requests.
    """
    trouble: list[str] = []
    _compare(old, new, "", trouble)
    return trouble


def _compare(old: Any, new: Any, place: str, trouble: list[str]) -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key, value in old.items():
            if key in TEXTS and not isinstance(value, dict):
                continue
            if key in UPPER_BOUNDS and IN_REQUESTS.search(place) and new.get(key, value) >= value:
                continue
            if key not in new:
                trouble.append(f"{place}/{key} is gone")
            elif key == "required" and isinstance(value, list):
                if set(value) != set(new[key]):
                    trouble.append(f"{place}/required: {value} -> {new[key]}")
            elif key == "parameters" and isinstance(value, list):
                names = [{entry["name"]: entry for entry in part} for part in (value, new[key])]
                _compare(*names, f"{place}/parameters", trouble)
            else:
                _compare(value, new[key], f"{place}/{key}", trouble)
        restrictions = RESTRICTIONS | ({"enum"} if IN_REQUESTS.search(place) else set())
        if "type" in old or "anyOf" in old:
            trouble += [f"{place}/{key} is new" for key in restrictions & new.keys() - old.keys()]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for position, (value, other) in enumerate(zip(old, new, strict=True)):
            _compare(value, other, f"{place}/{position}", trouble)
    elif old != new:
        trouble.append(f"{place}: {old!r} -> {new!r}")
