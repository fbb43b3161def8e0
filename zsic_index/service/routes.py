"""What is below /v1/: requests in, answers out; the work is the engine's."""

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
from zsic_index.records import Decision
from zsic_index.service import inputs
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
    ServedIndexInfo,
)

MAX_PAGE = 1_000
"""Labels of a page."""


def router(service: Service) -> APIRouter:
    """Return the routes of a service."""
    api = APIRouter(prefix="/v1", responses=PROBLEMS)
    settings = service.settings

    @api.post("/classify", response_model=Classifications, openapi_extra=body(ClassifyRequest))
    async def classify(request: Request) -> Response:
        """Classify images against an index.

        One that is refused has its error in its place, and the others their answers; when all are
        refused, the whole answer is an error.
        """
        asked, images = await inputs.parse(request, ClassifyRequest, settings)
        _check_labels(len(asked.labels), settings.max_labels)
        served = await service.index_for(asked)
        tower, answer = served.tower, await service.answer(served, asked)

        async def one(image: SentImage) -> dict[str, Any]:
            content = await service.content_of(image)
            return _answered(await service.engine.classify(tower, content, image.name, answer))

        results = await _each(images, one, service)
        return _all_or_some(results, _of_index(served))

    @api.post("/score", response_model=Classifications, openapi_extra=body(ScoreRequest))
    async def score(request: Request) -> Response:
        """Classify ready image embeddings: the scan without the vision tower."""
        asked, _ = await inputs.parse(request, ScoreRequest, settings)
        _check_labels(len(asked.labels), settings.max_labels)
        _check_count(len(asked.embeddings), settings.max_prompts, "embeddings")
        served = await service.index_for(asked)
        given = await service.engine.aside(inputs.embeddings_of, asked)
        unit = check_embeddings(given, served.info.dim)
        answer = await service.answer(served, asked)
        found = await service.engine.score(unit, answer)
        results = [{"image": str(at), **_answered(one)} for at, one in enumerate(found)]
        return _all_or_some(results, _of_index(served))

    @api.post("/embeddings", response_model=Embeddings, openapi_extra=body(EmbeddingsRequest))
    async def embeddings(request: Request) -> Response:
        """Embed images, or prompts as they are."""
        asked, images = await inputs.parse(request, EmbeddingsRequest, settings)
        if bool(images) == bool(asked.prompts):
            raise InputError("give either images or prompts")
        _check_count(len(asked.prompts), settings.max_prompts, "prompts")
        served = service.registry.get(asked.index)
        tower = served.tower
        as_base64 = asked.encoding_format == "base64"
        if asked.prompts:
            encoded = await service.engine.encode_prompts(
                served.index.encoder.encode_prompts, asked.prompts
            )
            results = [
                {"prompt": prompt, "embedding": _written(row, as_base64)}
                for prompt, row in zip(asked.prompts, encoded.embeddings, strict=True)
            ]
        else:

            async def one(image: SentImage) -> dict[str, Any]:
                content = await service.content_of(image)
                found = await service.engine.embed(tower, content, image.name)
                return {"embedding": _written(found, as_base64)}

            results = await _each(images, one, service)
        info = served.info
        return _all_or_some(
            results, {"index": info.name, "model_id": info.model_id, "dim": info.dim}
        )

    @api.get("/indexes", response_model=ServedIndexes)
    async def indexes() -> dict[str, Any]:
        """List the indexes that are served."""
        return {
            "indexes": [_described(served) for served in service.registry.all()],
            "template_sets": {name: len(found) for name, found in prompts.TEMPLATE_SETS.items()},
        }

    @api.get("/indexes/{name}", response_model=ServedIndexInfo)
    async def index(name: Annotated[str, Path(max_length=1_000)]) -> dict[str, Any]:
        """Describe an index."""
        return _described(service.registry.get(name))

    @api.get("/indexes/{name}/labels", response_model=Labels)
    async def labels(
        name: Annotated[str, Path(max_length=1_000)],
        q: Annotated[
            str | None, Query(max_length=1_000, description="In one of a label's names.")
        ] = None,
        offset: Annotated[int, Query(ge=0, le=1 << 40, description="Labels left out before.")] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Labels of this page.")] = 100,
    ) -> dict[str, Any]:
        """Search an index's labels, or go through all of them."""
        served = service.registry.get(name)

        def found() -> dict[str, Any]:
            places = matching(served.index, q)
            page = records(served.index, places[offset : offset + limit])
            return {**_of_index(served), "total": len(places), "labels": list(page)}

        return await service.engine.aside(found)

    return api


def _check_count(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise inputs.too_many(count, limit, what)


def _check_labels(count: int, limit: int) -> None:
    # Several requests would give other probabilities: this is not about the request's size.
    if count > limit:
        raise InputError(
            f"{count:,} labels; an answer can be limited to {limit:,}: build an index of these"
        )


async def _each(
    images: Sequence[SentImage],
    do: Callable[[SentImage], Awaitable[dict[str, Any]]],
    service: Service,
) -> list[dict[str, Any]]:
    """Return what became of each image: what it has come to, or its error."""
    found = await asyncio.gather(*map(do, images), return_exceptions=True)
    results: list[dict[str, Any]] = []
    for image, one in zip(images, found, strict=True):
        if isinstance(one, Exception):
            error = {"status": int(status_of(one)), "detail": detail_of(one)}
            results.append({"image": image.name, "error": error})
        elif isinstance(one, BaseException):
            raise one
        else:
            results.append({"image": image.name, **one})
        service.metrics.images.labels("refused" if "error" in results[-1] else "done").inc()
    return results


def _all_or_some(results: list[dict[str, Any]], about: dict[str, Any]) -> Response:
    """Return the answer: an error when there is nothing else in it."""
    errors = [one["error"] for one in results if "error" in one]
    if len(errors) == len(results):
        statuses = {error["status"] for error in errors}
        status = statuses.pop() if len(statuses) == 1 else HTTPStatus.UNPROCESSABLE_ENTITY
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        return problem(status, errors[0]["detail"] + more, results=results)
    document = {
        **about,
        "results": results,
        "done": len(results) - len(errors),
        "refused": len(errors),
    }
    return Response(json.dumps(document, allow_nan=False), media_type=inputs.JSON)


def _answered(decision: Decision) -> dict[str, Any]:
    # dataclasses.asdict copies everything twice.
    found: dict[str, Any] = {
        "predictions": [
            {name: getattr(one, name) for name in one.__dataclass_fields__}
            for one in decision.predictions
        ]
    }
    return found if decision.reason is None else found | {"none_of_these": decision.reason}


def _of_index(served: ServedIndex) -> dict[str, Any]:
    return {"index": served.info.name, "generation": served.info.generation}


def _written(embedding: Float32, as_base64: bool) -> list[float] | str:
    if as_base64:
        return base64.b64encode(embedding.astype("<f4").tobytes()).decode()
    numbers: list[float] = embedding.tolist()
    return numbers


def _described(served: ServedIndex) -> dict[str, Any]:
    info, taxonomy = served.info, served.index.structure
    fields = (
        *("name", "model_id", "revision", "dtype", "templates", "kind", "labels", "dim"),
        *("logit_scale", "logit_bias", "activation", "generation", "updated_at"),
    )
    return {
        **{name: getattr(info, name) for name in fields},
        "names": info.name_pooling,
        "ranks": list(taxonomy.ranks),
        "languages": sorted(taxonomy.taxonomy.languages),
        "calibrated": served.is_calibrated,
    }
