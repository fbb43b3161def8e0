"""The ASGI application of the service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.staticfiles import StaticFiles

from zsic_index import __version__
from zsic_index.service import openapi
from zsic_index.service.access import Access
from zsic_index.service.intake import Intake
from zsic_index.service.metrics import Metrics
from zsic_index.service.openapi import PROBLEMS
from zsic_index.service.problems import handle
from zsic_index.service.routes import router
from zsic_index.service.running import Service
from zsic_index.service.schemas import ClassifyRequest, EmbeddingsRequest, Health, ScoreRequest
from zsic_index.service.settings import Settings
from zsic_index.web import RefusedError
from zsic_index.web.static import SHARED_MODULES

_PAGE = Path(str(files("zsic_index.service") / "page"))

_REVALIDATED = {"Cache-Control": "no-cache"}
"""Browsers ask again: after an upgrade, old files of the page must not meet new ones."""


class _Files(StaticFiles):
    """Static files with the header of ``_REVALIDATED``."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        """Return a file, or 304 when it has not changed."""
        response = super().file_response(*arguments, **options)
        response.headers.update(_REVALIDATED)
        return response


def create_app(settings: Settings) -> FastAPI:
    """Return the application; its indexes are opened when it is started.

    Raises:
        StoreError: if the store is missing or cannot be used.
    """
    metrics = Metrics()
    service = Service(settings, metrics)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="zsic-index",
        version=__version__,
        description="Exact zero-shot image classification over large, fixed label sets.",
        lifespan=lifespan,
        # FastAPI's documentation pages load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    handle(app)
    app.include_router(router(service))

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_PAGE / "index.html", headers=_REVALIDATED)

    @app.get("/healthz", response_model=Health, responses=_problems(403, 421, 503))
    async def healthz() -> dict[str, Literal["ok"]]:
        """Check liveness: 503 if a worker has ended, so that the process must be restarted."""
        if not service.is_alive:
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE, "a worker has ended: start the service again"
            )
        return {"status": "ok"}

    @app.get("/readyz", response_model=Health, responses=_problems(403, 421, 503))
    async def readyz() -> dict[str, Literal["ok"]]:
        """Check readiness by classifying an image."""
        await service.readiness.check()
        return {"status": "ok"}

    @app.get(
        "/metrics",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **_problems(401, 403, 421),
        },
    )
    async def measured() -> Response:  # the name is part of the OpenAPI document
        """Return the metrics in the text format of Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    app.mount("/page/shared", _Files(directory=SHARED_MODULES))
    app.mount("/page", _Files(directory=_PAGE))
    openapi.describe(app, [ClassifyRequest, ScoreRequest, EmbeddingsRequest])
    app.add_middleware(
        Intake,
        settings=settings,
        access=Access(settings.tokens, settings.hosts),
        metrics=metrics,
    )
    return app


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI declarations of error responses."""
    return {status: PROBLEMS[status] for status in statuses}
