"""Models of requests and responses, from which the OpenAPI document is made.

Options of a query and records are not written down again here: ``fields_of`` takes names, types,
defaults and descriptions from ``Query`` and from ``records``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from zsic_index import records
from zsic_index.querying.options import QueryOption
from zsic_index.querying.query import OPTIONS, Query
from zsic_index.querying.thresholds import Thresholds
from zsic_index.service.base64_texts import is_data_url

MAX_TOP_K = 1_000
MAX_TEMPLATES = 100
MAX_FLOORS = 1_000

MAX_PROMPT = 10_000
"""Maximum number of characters of a prompt, the longest of all texts."""

_MAX_TEXT = 1_000
_MAX_URL = 8_000

Text = Annotated[str, Field(min_length=1, max_length=_MAX_TEXT)]
Probability = Annotated[float, Field(ge=0, le=1)]

_WIRE_TYPES: dict[Any, Any] = {
    str | None: Text | None,
    Sequence[str]: Annotated[list[Text], Field(fail_fast=True)],
    Mapping[str, float] | None: Annotated[dict[Text, Probability], Field(max_length=MAX_FLOORS)],
    # Thresholds of single labels are for Python and files on the command line.
    Thresholds | Literal["calibrated"] | None: Literal["calibrated"] | None,
}
"""Types of a query's options → their types in JSON, where these differ."""


class Schema(BaseModel):
    """Base of all models: unknown fields, infinity and NaN are errors."""

    model_config = ConfigDict(
        extra="forbid", ser_json_inf_nan="null", allow_inf_nan=False, protected_namespaces=()
    )


Model = TypeVar("Model", bound=BaseModel)


def fields_of(source: type[Any]) -> Callable[[type[Model]], type[Model]]:
    """Return a decorator that adds the fields of ``Query`` or of a record to a model."""
    fields = _query_fields() if source is Query else _record_fields(source)

    def decorate(model: type[Model]) -> type[Model]:
        return create_model(
            model.__name__,
            __base__=model,
            __doc__=model.__doc__,
            __module__=model.__module__,
            **fields,
        )

    return decorate


def _record_fields(record: type[Any]) -> dict[str, Any]:
    """Return fields for ``create_model`` from a record, under JSON keys and all required."""
    hints = get_type_hints(record)
    descriptions = records.field_descriptions(record)
    return {
        key: (hints[name], Field(description=re.sub(r"\bNone\b", "null", descriptions[name])))
        for name, key in records.json_names(record).items()
    }


def _query_fields() -> dict[str, Any]:
    """Return fields for ``create_model`` from the options that a service offers."""
    return {name: _query_field(option) for name, option in OPTIONS.items() if not option.local}


def _query_field(option: QueryOption) -> tuple[Any, Any]:
    """Return the type of an option in JSON, and its default and description."""
    wire_type, default = _WIRE_TYPES.get(option.type, option.type), option.default
    description = option.description
    if option.type == Sequence[str]:
        default = []
    elif option.type == Mapping[str, float] | None:
        default = {}
        description = f"{description} In a form: {option.metavar}, once for each rank."
    elif option.minimum is not None:
        maximum = MAX_TOP_K if option.name == "top_k" else option.maximum
        bounds = (
            Field(gt=option.minimum, le=maximum)
            if option.exclude_minimum
            else Field(ge=option.minimum, le=maximum)
        )
        wire_type = (
            Annotated[int, bounds] if option.type is int else Annotated[float, bounds] | None
        )
    return wire_type, Field(default, description=description)


class ImageInput(Schema):
    """An image: its file in base64, or a URL if the service fetches those."""

    name: Text | None = Field(None, description="Name of the image in the response.")
    data: str | None = Field(
        None, description="The file in base64 (standard or URL-safe), or as a data: URL."
    )
    url: str | None = Field(
        None,
        description="http or https, only if the service was started with --allow-urls; or a data: "
        "URL.",
    )

    @model_validator(mode="after")
    def _check_source(self) -> ImageInput:
        if (self.data is None) == (self.url is None):
            raise ValueError("an image has either data or a url")
        if self.url is not None and len(self.url) > _MAX_URL and not is_data_url(self.url):
            raise ValueError(f"a url has at most {_MAX_URL:,} characters")
        return self


@fields_of(Query)
class QueryRequest(Schema):
    """A query about each image; by default for the five most probable labels."""

    index: Text | None = Field(
        None, description="Name of the index; may be left out if only one is served."
    )
    templates: list[Text] = Field(
        [],
        max_length=MAX_TEMPLATES,
        fail_fast=True,
        description="Templates (or names of template sets) to use instead of the index's own; "
        "only if the service was started with --templates. The first request takes as long as "
        "encoding the labels.",
    )

    def query(self) -> Query:
        """Return the query.

        Raises:
            InputError: if options exclude each other.
        """
        values = {name: getattr(self, name) for name in OPTIONS if name in type(self).model_fields}
        # A tuple, so that equal queries have equal representations.
        return Query(**values | {"labels": tuple(values["labels"])})


class ClassifyRequest(QueryRequest):
    """Images, and a query about them."""

    images: list[str | ImageInput] = Field(
        min_length=1, fail_fast=True, description="Files in base64, or objects with a name."
    )


class ScoreRequest(QueryRequest):
    """Image embeddings, and a query about them. No vision tower is needed."""

    embeddings: list[Annotated[list[float], Field(fail_fast=True)] | str] = Field(
        min_length=1,
        fail_fast=True,
        description="Lists of numbers, or base64 of little-endian float32. They are normalised.",
    )


class EmbeddingsRequest(Schema):
    """Either images or prompts to embed."""

    index: Text | None = Field(
        None, description="An index of the encoder; may be left out if only one is served."
    )
    images: list[str | ImageInput] = Field([], fail_fast=True, description="See /v1/classify.")
    prompts: list[Annotated[str, Field(max_length=MAX_PROMPT)]] = Field(
        [], fail_fast=True, description="Texts to embed as they are, without a template."
    )
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="Numbers, or base64 of little-endian float32."
    )


@fields_of(records.Prediction)
class LabelPrediction(Schema):
    """A label predicted for an image."""


@fields_of(records.NodePrediction)
class RolledUp(Schema):
    """A node of the taxonomy predicted for an image."""


class Refusal(Schema):
    """Status and reason of a refused image, as if it had been sent alone."""

    status: int
    detail: str


class Classification(Schema):
    """Predictions for one image, best first, or an error."""

    image: str = Field(description="Name of the image, or its position if it has none.")
    predictions: list[LabelPrediction | RolledUp] | None = None
    none_of_these: str | None = Field(None, description="Why no label is accepted.")
    error: Refusal | None = None


class Classifications(Schema):
    """Results in the order of the images; ``done + refused`` is their number."""

    index: str
    generation: int = Field(description="Generation of the index that all predictions are from.")
    results: list[Classification]
    done: int
    refused: int


class Embedding(Schema):
    """Unit-norm embedding of one image or prompt, or an error."""

    image: str | None = None
    prompt: str | None = None
    embedding: list[float] | str | None = None
    error: Refusal | None = None


class Embeddings(Schema):
    """Embeddings in the order of the request; ``done + refused`` is their number."""

    index: str
    model_id: str | None
    dim: int
    results: list[Embedding]
    done: int
    refused: int


@fields_of(records.ServedIndexInfo)
class ServedIndexInfo(Schema):
    """An index that is served."""


class ServedIndexes(Schema):
    """All indexes that are served, and the names of template sets."""

    indexes: list[ServedIndexInfo]
    template_sets: dict[str, int] = Field(description="Name → number of templates.")
    max_template_sets: int = Field(
        0,
        description="Number of sets of templates that are kept for requests with ``templates``; 0 "
        "if these are refused.",
    )


@fields_of(records.LabelRecord)
class LabelRecord(Schema):
    """A label of an index."""


class Labels(Schema):
    """A page of labels, in the taxonomy's order."""

    index: str
    generation: int
    total: int = Field(description="Number of matching labels on all pages.")
    labels: list[LabelRecord]


class Health(Schema):
    """State of the service."""

    status: Literal["ok"]


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] | None = None
    results: list[Classification] | None = None
