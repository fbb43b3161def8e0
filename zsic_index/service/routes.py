"""Routes below /v1/: from a parsed request to its response, by way of the engine."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from zsic_index import prompts
from zsic_index.embedding_arrays import Float32, check_embeddings
from zsic_index.errors import InputError
from zsic_index.label_index.listing import matching, records
from zsic_index.records import Decision, ServedIndexInfo, to_json
from zsic_index.service import inputs, schemas
from zsic_index.service.indexes import ServedIndex
from zsic_index.service.inputs import SentImage
from zsic_index.service.openapi import PROBLEMS, body
from zsic_index.service.problems import detail_of, problem, status_of
from zsic_index.service.running import Service
from zsic_index.service.schemas import (
    Classifications,
    ClassifyRequest,
    Embeddings,
    EmbeddingsRequest,
    Labels,
    ScoreRequest,
    ServedIndexes,
)

MAX_PAGE = 1_000
"""Maximum number of labels per page."""


def router(service: Service) -> APIRouter:
    """Return the routes of a service."""
    api = APIRouter(prefix="/v1", responses=PROBLEMS)
    settings = service.settings

    @api.post("/classify", response_model=Classifications, openapi_extra=body(ClassifyRequest))
    async def classify(http_request: Request) -> Response:
        """Classify images against an index.

        A refused image gets an error in its slot; the response itself fails only if every image
        was refused.
        """
        request, images = await inputs.parse(
            http_request, ClassifyRequest, settings, service.engine
        )
        served, compiled = await service.compile(request)
        tower = served.tower

        async def classify_image(image: SentImage) -> dict[str, Any]:
            content = await service.content_of(image)
            decision = await service.engine.classify(tower, content, image.name, compiled)
            return _decision_json(decision)

        results = await _each(images, classify_image, service)
        return _respond(results, _index_json(served))

    @api.post("/score", response_model=Classifications, openapi_extra=body(ScoreRequest))
    async def score(http_request: Request) -> Response:
        """Classify image embeddings: the scan without the vision tower."""
        dim = max((served.info.dim for served in service.registry.all()), default=0)
        request, _ = await inputs.parse(http_request, ScoreRequest, settings, service.engine, dim)
        _check_count(len(request.embeddings), settings.max_prompts, "embeddings")
        served, compiled = await service.compile(request)
        parsed = await service.engine.aside(inputs.embeddings_of, request)
        unit = check_embeddings(parsed, served.info.dim)
        decisions = await service.engine.score(unit, compiled)
        results = [
            {"image": str(position), **_decision_json(decision)}
            for position, decision in enumerate(decisions)
        ]
        return _respond(results, _index_json(served))

    @api.post("/embeddings", response_model=Embeddings, openapi_extra=body(EmbeddingsRequest))
    async def embeddings(http_request: Request) -> Response:
        """Embed images, or prompts as they are."""
        request, images = await inputs.parse(
            http_request, EmbeddingsRequest, settings, service.engine
        )
        if bool(images) == bool(request.prompts):
            raise InputError("give either images or prompts")
        _check_count(len(request.prompts), settings.max_prompts, "prompts")
        served = service.registry.get(request.index)
        tower = served.tower
        as_base64 = request.encoding_format == "base64"
        if request.prompts:
            encoded = await service.engine.encode_prompts(
                served.index.encoder.encode_prompts, request.prompts
            )
            results = [
                {"prompt": prompt, "embedding": _embedding_json(embedding, as_base64)}
                for prompt, embedding in zip(request.prompts, encoded.embeddings, strict=True)
            ]
        else:

            async def embed_image(image: SentImage) -> dict[str, Any]:
                content = await service.content_of(image)
                embedding = await service.engine.embed(tower, content, image.name)
                return {"embedding": _embedding_json(embedding, as_base64)}

            results = await _each(images, embed_image, service)
        info = served.info
        return _respond(results, {"index": info.name, "model_id": info.model_id, "dim": info.dim})

    @api.get("/indexes", response_model=ServedIndexes)
    async def indexes() -> dict[str, Any]:
        """List the indexes that are served."""
        return {
            "indexes": [to_json(_describe(served)) for served in service.registry.all()],
            "template_sets": {
                name: len(templates) for name, templates in prompts.TEMPLATE_SETS.items()
            },
            "max_template_sets": settings.max_template_sets,
        }

    @api.get("/indexes/{name}", response_model=schemas.ServedIndexInfo)
    async def index(name: Annotated[str, Path(max_length=1_000)]) -> dict[str, Any]:
        """Describe an index."""
        return to_json(_describe(service.registry.get(name)))

    @api.get("/indexes/{name}/labels", response_model=Labels)
    async def labels(
        name: Annotated[str, Path(max_length=1_000)],
        q: Annotated[
            str | None, Query(max_length=1_000, description="Text within one of a label's names.")
        ] = None,
        offset: Annotated[
            int, Query(ge=0, le=1 << 40, description="Number of labels to skip.")
        ] = 0,
        limit: Annotated[
            int, Query(ge=1, le=MAX_PAGE, description="Maximum number of labels on this page.")
        ] = 100,
    ) -> dict[str, Any]:
        """Search an index's labels, or list all of them page by page."""
        served = service.registry.get(name)

        def page() -> dict[str, Any]:
            places = matching(served.index, q)
            labels = records(served.index, places[offset : offset + limit])
            return {**_index_json(served), "total": len(places), "labels": list(labels)}

        return await service.engine.aside(page)

    return api


def _check_count(count: int, limit: int, noun: str) -> None:
    if count > limit:
        raise inputs.too_many(count, limit, noun)


async def _each(
    images: Sequence[SentImage],
    do: Callable[[SentImage], Awaitable[dict[str, Any]]],
    service: Service,
) -> list[dict[str, Any]]:
    """Return the result of ``do`` for each image, or the error with which the image was refused."""
    outcomes = await asyncio.gather(*map(do, images), return_exceptions=True)
    results: list[dict[str, Any]] = []
    for image, outcome in zip(images, outcomes, strict=True):
        if isinstance(outcome, Exception):
            error = {"status": int(status_of(outcome)), "detail": detail_of(outcome)}
            results.append({"image": image.name, "error": error})
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            results.append({"image": image.name, **outcome})
        service.metrics.images.labels("refused" if "error" in results[-1] else "done").inc()
    return results


def _respond(results: list[dict[str, Any]], header: dict[str, Any]) -> Response:
    """Return the response to a request, which is an error if every result is one.

    Args:
        results: one for each image, embedding or prompt.
        header: other members of a successful response.
    """
    errors = [result["error"] for result in results if "error" in result]
    if len(errors) == len(results):
        statuses = {error["status"] for error in errors}
        status = statuses.pop() if len(statuses) == 1 else HTTPStatus.UNPROCESSABLE_ENTITY
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        return problem(status, errors[0]["detail"] + more, results=results)
    document = {
        **header,
        "results": results,
        "done": len(results) - len(errors),
        "refused": len(errors),
    }
    return Response(json.dumps(document, allow_nan=False), media_type=inputs.JSON)


def _decision_json(decision: Decision) -> dict[str, Any]:
    # dataclasses.asdict copies everything twice.
    document: dict[str, Any] = {
        "predictions": [
            {name: getattr(prediction, name) for name in prediction.__dataclass_fields__}
            for prediction in decision.predictions
        ]
    }
    if decision.reason is not None:
        document["none_of_these"] = decision.reason
    return document


def _index_json(served: ServedIndex) -> dict[str, Any]:
    return {"index": served.info.name, "generation": served.info.generation}


def _embedding_json(embedding: Float32, as_base64: bool) -> list[float] | str:
    if as_base64:
        return base64.b64encode(embedding.astype("<f4").tobytes()).decode()
    numbers: list[float] = embedding.tolist()
    return numbers


def _describe(served: ServedIndex) -> ServedIndexInfo:
    info, structure = served.info, served.index.structure
    return ServedIndexInfo(
        name=info.name,
        model_id=info.model_id,
        revision=info.revision,
        dtype=info.dtype,
        templates=info.templates,
        kind=info.kind,
        name_pooling=info.name_pooling,
        labels=info.labels,
        dim=info.dim,
        logit_scale=info.logit_scale,
        logit_bias=info.logit_bias,
        activation=info.activation,
        generation=info.generation,
        updated_at=info.updated_at,
        ranks=tuple(structure.ranks),
        languages=tuple(sorted(structure.taxonomy.languages)),
        calibrated=served.is_calibrated,
    )
