"""The parts of the OpenAPI document that FastAPI does not infer: bodies that are JSON or a form."""

from __future__ import annotations

import copy
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from zsic_index.service.inputs import FORM, JSON
from zsic_index.service.problems import MEDIA_TYPE
from zsic_index.service.schemas import Problem

_REF = "#/components/schemas/{model}"

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model=Problem.__name__)}}},
    }
    for status, text in {
        400: "The body cannot be read.",
        401: "A token is needed.",
        403: "A page of another origin may not use the service.",
        404: "There is no such index.",
        405: "The method is not supported.",
        408: "The body arrived too slowly.",
        413: "Too many bytes, pixels, images or parts.",
        415: "The content type or image format is not supported.",
        421: "The service has another host name.",
        422: "The request cannot be processed.",
        429: "The service is full: try again after Retry-After.",
        500: "Unexpected error; the log says more.",
        503: "The service cannot answer at present.",
        504: "Not done within the deadline.",
    }.items()
}
"""Error responses of every route."""


def body(model: type[BaseModel]) -> dict[str, Any]:
    """Return the OpenAPI declaration of a body: the model as JSON, or as a form with files."""
    content = {JSON: {"schema": {"$ref": _REF.format(model=model.__name__)}}}
    if "images" in model.model_fields:
        content[FORM] = {"schema": {"$ref": _REF.format(model=_form_name(model))}}
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI, models: list[type[BaseModel]]) -> None:
    """Add the models of such bodies to the OpenAPI document of an application."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            openapi = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            bodies: list[type[BaseModel]] = [*models, Problem]
            _, schemas = models_json_schema(
                [(model, "validation") for model in bodies], ref_template=_REF
            )
            components = openapi.setdefault("components", {}).setdefault("schemas", {})
            components.update(schemas["$defs"])
            for model in models:
                if "images" in model.model_fields:
                    components[_form_name(model)] = _form(components[model.__name__])
            app.openapi_schema = openapi
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _form_name(model: type[BaseModel]) -> str:
    return model.__name__.replace("Request", "Form")


def _form(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a form, given that of a JSON document."""
    form = copy.deepcopy(schema)
    fields = form["properties"]
    fields.pop("prompts", None)  # forms are for files
    fields["images"] = {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "minItems": 1,
        "description": "Files; every part with a file name or the type of an image is one.",
    }
    if "floors" in fields:
        fields["floors"] = {
            "type": "array",
            "items": {"type": "string", "pattern": r"^[^=]+=(0(\.[0-9]+)?|1)$"},
            "description": "RANK=FLOOR, once for each rank.",
        }
    for name, field in fields.items():
        # A form has no null: leave the field out instead.
        options = [option for option in field.pop("anyOf", ()) if option.get("type") != "null"]
        fields[name] = {**field, **options[0]} if options else field
        fields[name].pop("default", None)
    form["required"] = ["images"]
    return form
