"""The client: queries to a service from Python."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload
from urllib.parse import quote

from zsic_index.client import responses, uploads
from zsic_index.client.connection import TOO_MUCH, Connection, ServiceResponse
from zsic_index.client.requests import (
    LabelOptions,
    NodeOptions,
    QueryOptions,
    document_of_options,
    document_of_query,
    fits_a_form,
    form_of,
)
from zsic_index.client.uploads import Upload
from zsic_index.errors import ImageError, InputError, ServiceError
from zsic_index.images.opening import ImageSource, as_sequence
from zsic_index.images.prefetch import prepare_batches
from zsic_index.parallel import batched
from zsic_index.records import (
    Decision,
    LabelRecord,
    NodePrediction,
    Prediction,
    ServedIndexInfo,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from zsic_index.embedding_arrays import Float32
    from zsic_index.querying.query import Query

_ROWS = 256
"""Maximum number of embeddings or prompts per request."""

_PAGE = 1_000
"""Maximum number of labels per page."""

_READY_SECONDS = 10.0
"""Seconds after which a service counts as not ready."""

Item = TypeVar("Item")
Parsed = TypeVar("Parsed")


class Client(AbstractContextManager["Client"]):
    """A client of a service, with the results of a ``LabelIndex``.

    Images are uploaded in batches, files as they are but without their names. A request that is
    too large for the service is sent in parts. Any number of threads may share a client.
    """

    def __init__(
        self,
        url: str,
        *,
        index: str | None = None,
        token: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
    ) -> None:
        """Prepare a client; nothing is sent yet.

        Args:
            url: address of the service, such as ``http://127.0.0.1:8000``.
            index: name of the index to query; None if only one is served.
            token: token of the service, if it needs one; by default that in ``ZSIC_TOKEN``.
            timeout: seconds to wait for the service to send something.
            retries: number of times that a request is repeated if the service is full,
                unavailable or unreachable, each after the delay that the service asks for.

        Raises:
            InputError: for an invalid address, token or number.
        """
        self._index = index
        self._connection = Connection(url, token=token, timeout=timeout, retries=retries)
        self._max_images = uploads.MAX_IMAGES

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    # Queries about images

    @overload
    def classify(  # type: ignore[overload-overlap]
        self, images: ImageSource, **options: Unpack[LabelOptions]
    ) -> list[Prediction]: ...

    @overload
    def classify(  # type: ignore[overload-overlap]
        self, images: Sequence[ImageSource], **options: Unpack[LabelOptions]
    ) -> list[list[Prediction]]: ...

    @overload
    def classify(  # type: ignore[overload-overlap]
        self, images: ImageSource, **options: Unpack[NodeOptions]
    ) -> list[NodePrediction]: ...

    @overload
    def classify(
        self, images: Sequence[ImageSource], **options: Unpack[NodeOptions]
    ) -> list[list[NodePrediction]]: ...

    def classify(self, images: ImageSource | Sequence[ImageSource], **options: Any) -> object:
        """Return the accepted labels or nodes, best first, for one image or for each of several.

        Args:
            images: a path, the bytes of a file or a PIL image, or a sequence of these.
            options: those of ``zsic_index.querying.query.Query``, which describes them, but for
                ``encode_missing`` and ``negatives``; and ``templates``, to use instead of the
                index's own. ``rank`` and ``deepest`` give nodes of the taxonomy.

        Returns:
            ``Prediction`` or ``NodePrediction`` records; none for an image that shows no label of
            the index, for which ``stream`` gives the reason.

        Raises:
            ImageError: if an image is refused; ``stream`` goes on instead.
            IndexNotFoundError: if the service does not have the index.
            InputError: for options that the index cannot answer.
            ServiceError: if the service cannot be reached, refuses the token or fails.
        """
        decisions = [_or_raise(result) for result in self.stream(as_sequence(images), **options)]
        predictions = [list(decision.predictions) for decision in decisions]
        return predictions[0] if isinstance(images, ImageSource) else predictions

    def stream(
        self, images: Iterable[ImageSource], **options: Unpack[QueryOptions]
    ) -> Iterator[Decision | ImageError]:
        """Classify any number of images in bounded memory.

        Yields for each image in order its decision, or the ImageError with which the service or
        this client has refused it. Arguments and errors are those of ``classify``.
        """
        return self._classify(images, document_of_options(options))

    def stream_query(
        self, images: Iterable[ImageSource], query: Query
    ) -> Iterator[Decision | ImageError]:
        """Answer a query about any number of images; see ``stream``."""
        return self._classify(images, document_of_query(query))

    @overload
    def score(
        self, embeddings: npt.ArrayLike, **options: Unpack[LabelOptions]
    ) -> list[list[Prediction]]: ...

    @overload
    def score(
        self, embeddings: npt.ArrayLike, **options: Unpack[NodeOptions]
    ) -> list[list[NodePrediction]]: ...

    def score(self, embeddings: npt.ArrayLike, **options: Any) -> object:
        """Return the accepted labels or nodes, best first, for image embeddings.

        Args:
            embeddings: (B, D) or (D,) floating-point image embeddings; each row is normalised.
            options: see ``classify``.

        Raises:
            EmbeddingError: for another shape or dtype, NaN, infinity, or a row of norm 0.
            ZsicError: see ``classify``.
        """
        from zsic_index.embedding_arrays import check_embeddings

        document = self._with_index(document_of_options(options))

        def send(encoded: Sequence[str]) -> ServiceResponse:
            body = {**document, "embeddings": list(encoded)}
            return self._connection.send("POST", "/v1/score", json=body)

        predictions = []
        unit = check_embeddings(embeddings).astype("<f4", copy=False)
        for rows in batched(unit, _ROWS):
            encoded = [base64.b64encode(row.tobytes()).decode() for row in rows]
            for result in self._results(encoded, send):
                decision = self._connection.read(responses.parse_decision, result)
                predictions.append(list(decision.predictions))
        return predictions

    # Embedding

    def embed(self, images: ImageSource | Sequence[ImageSource]) -> Float32:
        """Return (B, D) float32 unit-norm image embeddings, as ``score`` takes them.

        Raises:
            ImageError: if an image is refused.
            ZsicError: see ``classify``.
        """
        document = self._with_index({"encoding_format": "base64"})
        results = self._upload(
            as_sequence(images), "/v1/embeddings", document, responses.parse_embedding
        )
        return self._stack(_or_raise(result) for result in results)

    def embed_prompts(self, prompts: Sequence[str]) -> Float32:
        """Return (P, D) float32 unit-norm embeddings of texts as they are, without a template.

        Raises:
            ZsicError: see ``classify``.
        """
        if isinstance(prompts, str):
            raise InputError(f"prompts={prompts!r}: give a list of prompts, not one string")
        document = self._with_index({"encoding_format": "base64"})

        def send(batch: Sequence[str]) -> ServiceResponse:
            body = {**document, "prompts": list(batch)}
            return self._connection.send("POST", "/v1/embeddings", json=body)

        return self._stack(
            self._connection.read(responses.parse_embedding, result)
            for batch in batched(prompts, _ROWS)
            for result in self._results(batch, send)
        )

    # Indexes and labels

    def indexes(self) -> list[ServedIndexInfo]:
        """Return the indexes that are served, by name.

        Raises:
            ServiceError: see ``classify``.
        """
        document = self._connection.request("GET", "/v1/indexes")
        return self._connection.read(responses.parse_indexes, document)

    def labels(self, name: str | None = None, q: str | None = None) -> Iterator[LabelRecord]:
        """Yield an index's labels in the taxonomy's order, requesting one page at a time.

        Args:
            name: name of the index; by default the client's own, or the only one that is served.
            q: text that one of a label's names contains, in any case; None for all labels.

        Raises:
            IndexNotFoundError: if the service does not have the index.
            ServiceError: if the index is rebuilt between two pages; see also ``classify``.
        """
        name = name or self._index or self._only_index().name
        path = f"/v1/indexes/{quote(name, safe='')}/labels"
        words = {} if q is None else {"q": q}
        offset, generation = 0, None
        while True:
            parameters = {**words, "offset": offset, "limit": _PAGE}
            document = self._connection.request("GET", path, params=parameters)
            page, total, page_generation = self._connection.read(responses.parse_page, document)
            if generation not in (None, page_generation):
                raise ServiceError(f"index {name!r} was built again meanwhile: ask again")
            generation = page_generation
            yield from page
            offset += len(page)
            if offset >= total or not page:
                return

    def is_ready(self) -> bool:
        """Return whether the service can classify an image now; False if it cannot be reached.

        Raises:
            ServiceError: if another program answers, or the service has another host name.
        """
        return self._connection.is_ready(_READY_SECONDS)

    # Internals

    def _with_index(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Return a document that also names the index."""
        return {**document} if self._index is None else {**document, "index": self._index}

    def _only_index(self) -> ServedIndexInfo:
        """Return the description of the client's index, or of the only one."""
        served = self.indexes()
        candidates = [info for info in served if self._index in (None, info.name)]
        if len(candidates) != 1:
            names = ", ".join(info.name for info in served) or "(there are none yet)"
            raise InputError(f"name an index, one of: {names}")
        return candidates[0]

    def _classify(
        self, images: Iterable[ImageSource], document: Mapping[str, Any]
    ) -> Iterator[Decision | ImageError]:
        document = self._with_index(document)
        return self._upload(images, "/v1/classify", document, responses.parse_decision)

    def _upload(
        self,
        images: Iterable[ImageSource],
        path: str,
        document: Mapping[str, Any],
        parse: Callable[[Mapping[str, Any]], Parsed],
    ) -> Iterator[Parsed | ImageError]:
        """Send any number of images; yield each parsed result, or the error of the image."""

        def send(batch: Sequence[Upload]) -> ServiceResponse:
            response = self._send_images(path, document, batch)
            if response.status in TOO_MUCH:
                self._max_images = max(1, min(self._max_images, len(batch) // 2))
            return response

        batches = uploads.batches(images, lambda: self._max_images)
        for batch in prepare_batches(batches, uploads.upload, threads=uploads.READERS):
            results = self._results([image for image in batch if isinstance(image, Upload)], send)
            for image in batch:
                if isinstance(image, ImageError):
                    yield image
                else:
                    yield self._parse(next(results), image, parse)

    def _send_images(
        self, path: str, document: Mapping[str, Any], batch: Sequence[Upload]
    ) -> ServiceResponse:
        # Positions serve as names: the names of files are private.
        contents = {str(position): image.content for position, image in enumerate(batch)}
        if fits_a_form(document):
            files = [
                ("images", (name, content, "application/octet-stream"))
                for name, content in contents.items()
            ]
            return self._connection.send("POST", path, data=form_of(document), files=files)
        images = [
            {"name": name, "data": base64.b64encode(content).decode()}
            for name, content in contents.items()
        ]
        return self._connection.send("POST", path, json={**document, "images": images})

    def _results(
        self, items: Sequence[Item], send: Callable[[Sequence[Item]], ServiceResponse]
    ) -> Iterator[dict[str, Any]]:
        """Yield a result for each item; a request that is too large is sent in halves.

        Raises:
            ZsicError: if the request is refused as a whole.
        """
        if not items:
            return
        response = send(items)
        results = response.document.get("results")
        if isinstance(results, list) and len(results) == len(items):
            yield from results
        elif response.status in TOO_MUCH and len(items) > 1:
            half = len(items) // 2
            yield from self._results(items[:half], send)
            yield from self._results(items[half:], send)
        elif response.status == 413 and isinstance(items[0], Upload):
            # A request with a single image is too large because of the image.
            yield {"error": {"status": 413, "detail": response.detail}}
        elif response.status == 200:
            raise ServiceError(
                f"{self._connection.address} has not answered for each that was sent"
            )
        else:
            raise self._connection.refusal(response)

    def _parse(
        self,
        result: Mapping[str, Any],
        image: Upload,
        parse: Callable[[Mapping[str, Any]], Parsed],
    ) -> Parsed | ImageError:
        if result.get("error") is None:
            return self._connection.read(parse, result)
        status, detail = self._connection.read(responses.parse_refusal, result)
        if not 400 <= status < 500:
            raise ServiceError(f"{self._connection.address}: {image.name}: {detail} ({status})")
        return responses.image_error(status, detail, image.name)

    def _stack(self, embeddings: Iterable[Float32]) -> Float32:
        import numpy as np

        rows = list(embeddings)
        if not rows:
            return np.empty((0, self._only_index().dim), dtype=np.float32)
        return np.stack(rows).astype(np.float32, copy=False)


def _or_raise(result: Parsed | ImageError) -> Parsed:
    if isinstance(result, ImageError):
        raise result
    return result
