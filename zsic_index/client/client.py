"""Client: what a Python program holds that asks a service."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload
from urllib.parse import quote

from zsic_index.client import responses, uploads
from zsic_index.client.connection import TOO_MUCH, Connection, ServiceResponse
from zsic_index.client.requests import (
    Asked,
    LabelsAsked,
    NodesAsked,
    document_of,
    document_of_query,
    fits_a_form,
    form_of,
)
from zsic_index.client.uploads import Upload
from zsic_index.errors import ImageError, InputError, ServiceError
from zsic_index.images.opening import ImageSource, listed
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
"""Embeddings or prompts of a request."""

_PAGE = 1_000
"""Labels of a page."""

_READY_SECONDS = 10.0
"""Seconds after which a service is taken not to be ready."""

Item = TypeVar("Item")
Made = TypeVar("Made")


class Client(AbstractContextManager["Client"]):
    """Asks a service what a ``LabelIndex`` is asked, for the same answers.

    Images go up in batches, files as they are; what they are called does not. A request that is
    too much for the service goes up in parts. Any number of threads may use one client.
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
        """Connect to nothing yet.

        Args:
            url: the service's address, such as ``http://127.0.0.1:8000``.
            index: which index is asked; None where only one is served.
            token: what opens the service, where it needs that; by default what is in
                ``ZSIC_TOKEN``.
            timeout: seconds without any news from the service.
            retries: how often a request is sent again when the service is full, is not there for
                now, or could not be connected to. It is asked no earlier than it asks for.

        Raises:
            InputError: for what is no address, token or number of these.
        """
        self._index = index
        self._connection = Connection(url, token=token, timeout=timeout, retries=retries)
        self._most_images = uploads.MAX_IMAGES

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    # Asking about images

    @overload
    def classify(  # type: ignore[overload-overlap]
        self, images: ImageSource, **asked: Unpack[LabelsAsked]
    ) -> list[Prediction]: ...

    @overload
    def classify(  # type: ignore[overload-overlap]
        self, images: Sequence[ImageSource], **asked: Unpack[LabelsAsked]
    ) -> list[list[Prediction]]: ...

    @overload
    def classify(  # type: ignore[overload-overlap]
        self, images: ImageSource, **asked: Unpack[NodesAsked]
    ) -> list[NodePrediction]: ...

    @overload
    def classify(
        self, images: Sequence[ImageSource], **asked: Unpack[NodesAsked]
    ) -> list[list[NodePrediction]]: ...

    def classify(self, images: ImageSource | Sequence[ImageSource], **asked: Any) -> object:
        """Return the accepted labels or nodes, best first, for one image or for each of several.

        Args:
            images: a path, the bytes of a file or a PIL image, or a sequence of these.
            asked: what ``requests.Asked`` lists: ``top_k``, ``labels``, ``over_index``, ``under``,
                ``rank``, ``deepest``, ``floors``, ``independent``, ``threshold``, ``thresholds``,
                ``sets``, ``none_below``, ``none_within``, ``calibrated``, ``lang``, ``templates``.
                With ``rank`` or ``deepest`` answers are nodes of the taxonomy.

        Returns:
            ``Prediction`` or ``NodePrediction`` records. There are none for an image that shows
            none of the labels; ``stream`` says why.

        Raises:
            ImageError: when an image is refused; ``stream`` goes on instead.
            IndexNotFoundError: when the service does not have the index.
            InputError: for what cannot be asked of this index.
            ServiceError: when there is no service, it does not let in, or does not answer.
        """
        found = [list(_accepted(one).predictions) for one in self.stream(listed(images), **asked)]
        return found[0] if isinstance(images, ImageSource) else found

    def stream(
        self, images: Iterable[ImageSource], **asked: Unpack[Asked]
    ) -> Iterator[Decision | ImageError]:
        """Classify any number of images in bounded memory.

        Yields one result for each image in order: what is said of it, or the ImageError that says
        why it was refused, by the service or here. Arguments and errors are those of ``classify``.
        """
        return self._classified(images, document_of(asked))

    def stream_answers(
        self, images: Iterable[ImageSource], query: Query
    ) -> Iterator[Decision | ImageError]:
        """Yield for each image what a query's answer is; see ``stream``."""
        return self._classified(images, document_of_query(query))

    @overload
    def score(
        self, embeddings: npt.ArrayLike, **asked: Unpack[LabelsAsked]
    ) -> list[list[Prediction]]: ...

    @overload
    def score(
        self, embeddings: npt.ArrayLike, **asked: Unpack[NodesAsked]
    ) -> list[list[NodePrediction]]: ...

    def score(self, embeddings: npt.ArrayLike, **asked: Any) -> object:
        """Return the accepted labels or nodes, best first, for ready image embeddings.

        Args:
            embeddings: (B, D) or (D,) floating-point image embeddings; each row is normalised.
            asked: see ``classify``.

        Raises:
            EmbeddingError: for another shape or dtype, NaN, infinity, or a row of norm 0.
            ZsicError: see ``classify``.
        """
        from zsic_index.embedding_arrays import check_embeddings

        document = self._of_index(document_of(asked))

        def send(rows: Sequence[str]) -> ServiceResponse:
            sent = {**document, "embeddings": list(rows)}
            return self._connection.send("POST", "/v1/score", json=sent)

        found = []
        unit = check_embeddings(embeddings).astype("<f4", copy=False)
        for rows in batched(unit, _ROWS):
            written = [base64.b64encode(row.tobytes()).decode() for row in rows]
            for result in self._results(written, send):
                found.append(list(self._connection.read(responses.decision, result).predictions))
        return found

    # Embedding

    def embed(self, images: ImageSource | Sequence[ImageSource]) -> Float32:
        """Return (B, D) float32 unit-norm image embeddings, as ``score`` takes them.

        Raises:
            ImageError: when an image is refused.
            ZsicError: see ``classify``.
        """
        document = self._of_index({"encoding_format": "base64"})
        found = self._uploaded(listed(images), "/v1/embeddings", document, responses.embedding)
        return self._stacked(_accepted(one) for one in found)

    def embed_prompts(self, prompts: Sequence[str]) -> Float32:
        """Return (P, D) float32 unit-norm embeddings of texts as they are, without a template.

        Raises:
            ZsicError: see ``classify``.
        """
        if isinstance(prompts, str):
            raise InputError(f"prompts={prompts!r}: give a list of prompts, not one string")
        document = self._of_index({"encoding_format": "base64"})

        def send(some: Sequence[str]) -> ServiceResponse:
            sent = {**document, "prompts": list(some)}
            return self._connection.send("POST", "/v1/embeddings", json=sent)

        return self._stacked(
            self._connection.read(responses.embedding, result)
            for some in batched(prompts, _ROWS)
            for result in self._results(some, send)
        )

    # Looking at it

    def indexes(self) -> list[ServedIndexInfo]:
        """Return the indexes that are served, by name.

        Raises:
            ServiceError: see ``classify``.
        """
        document = self._connection.ask("GET", "/v1/indexes")
        return self._connection.read(
            lambda found: [responses.record(ServedIndexInfo, one) for one in found["indexes"]],
            document,
        )

    def labels(self, name: str | None = None, q: str | None = None) -> Iterator[LabelRecord]:
        """Yield an index's labels in the taxonomy's order, asking for a page at a time.

        Args:
            name: which index; by default the client's own, or the only one that is served.
            q: what one of a label's names has in it, whatever the case; None for all labels.

        Raises:
            IndexNotFoundError: when the service does not have the index.
            ServiceError: when the index was built again meanwhile; see also ``classify``.
        """
        name = name or self._index or self._only_index().name
        path = f"/v1/indexes/{quote(name, safe='')}/labels"
        words = {} if q is None else {"q": q}
        offset, generation = 0, None
        while True:
            where = {**words, "offset": offset, "limit": _PAGE}
            page = self._connection.ask("GET", path, params=where)
            found, total, current = self._connection.read(_page, page)
            if generation not in (None, current):
                raise ServiceError(f"index {name!r} was built again meanwhile: ask again")
            generation = current
            yield from found
            offset += len(found)
            if offset >= total or not found:
                return

    def is_ready(self) -> bool:
        """Tell whether an image would be classified now; False as well when no service is there.

        Raises:
            ServiceError: when what answers is not zsic-index, or goes by another name.
        """
        return self._connection.is_ready(_READY_SECONDS)

    # Inside

    def _of_index(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Return a document that also says which index is asked."""
        return {**document} if self._index is None else {**document, "index": self._index}

    def _only_index(self) -> ServedIndexInfo:
        """Return what is known about the client's index, or about the only one."""
        found = self.indexes()
        named = [one for one in found if self._index in (None, one.name)]
        if len(named) != 1:
            names = ", ".join(one.name for one in found) or "(there are none yet)"
            raise InputError(f"name an index, one of: {names}")
        return named[0]

    def _classified(
        self, images: Iterable[ImageSource], document: Mapping[str, Any]
    ) -> Iterator[Decision | ImageError]:
        return self._uploaded(images, "/v1/classify", self._of_index(document), responses.decision)

    def _uploaded(
        self,
        images: Iterable[ImageSource],
        path: str,
        document: Mapping[str, Any],
        make: Callable[[Mapping[str, Any]], Made],
    ) -> Iterator[Made | ImageError]:
        """Send any number of images; yield what is made of each result, or why it was refused."""

        def send(some: Sequence[Upload]) -> ServiceResponse:
            answer = self._send_images(path, document, some)
            if answer.status in TOO_MUCH:
                self._most_images = max(1, min(self._most_images, len(some) // 2))
            return answer

        batches = uploads.batches(images, lambda: self._most_images)
        for batch in prepare_batches(batches, uploads.upload, threads=uploads.READERS):
            found = self._results([one for one in batch if isinstance(one, Upload)], send)
            for one in batch:
                yield one if isinstance(one, ImageError) else self._made(next(found), one, make)

    def _send_images(
        self, path: str, document: Mapping[str, Any], some: Sequence[Upload]
    ) -> ServiceResponse:
        # Named by their places: what files are called here is nobody's business there.
        named = [(str(at), one.content) for at, one in enumerate(some)]
        if fits_a_form(document):
            files = [("images", (*one, "application/octet-stream")) for one in named]
            return self._connection.send("POST", path, data=form_of(document), files=files)
        images = [{"name": at, "data": base64.b64encode(one).decode()} for at, one in named]
        return self._connection.send("POST", path, json={**document, "images": images})

    def _results(
        self, items: Sequence[Item], send: Callable[[Sequence[Item]], ServiceResponse]
    ) -> Iterator[dict[str, Any]]:
        """Yield a result for each item; what is too much for one request is sent in halves.

        Raises:
            ZsicError: when the request is refused as a whole.
        """
        if not items:
            return
        answer = send(items)
        results = answer.document.get("results")
        if isinstance(results, list) and len(results) == len(items):
            yield from results
        elif answer.status in TOO_MUCH and len(items) > 1:
            half = len(items) // 2
            yield from self._results(items[:half], send)
            yield from self._results(items[half:], send)
        elif answer.status == 413 and isinstance(items[0], Upload):
            # Nothing is left to blame but the image.
            yield {"error": {"status": 413, "detail": answer.detail}}
        elif answer.status == 200:
            raise ServiceError(
                f"{self._connection.address} has not answered for each that was sent"
            )
        else:
            raise self._connection.refusal(answer)

    def _made(
        self,
        result: Mapping[str, Any],
        image: Upload,
        make: Callable[[Mapping[str, Any]], Made],
    ) -> Made | ImageError:
        if result.get("error") is None:
            return self._connection.read(make, result)
        status, detail = self._connection.read(_refusal, result)
        if not 400 <= status < 500:
            raise ServiceError(f"{self._connection.address}: {image.name}: {detail} ({status})")
        return responses.image_error(status, detail, image.name)

    def _stacked(self, rows: Iterable[Float32]) -> Float32:
        import numpy as np

        found = list(rows)
        if not found:
            return np.empty((0, self._only_index().dim), dtype=np.float32)
        return np.stack(found).astype(np.float32, copy=False)


def _accepted(found: Made | ImageError) -> Made:
    if isinstance(found, ImageError):
        raise found
    return found


def _page(document: Mapping[str, Any]) -> tuple[list[LabelRecord], int, int]:
    """Return the labels of a page, how many there are in all, and the index's generation."""
    found = [responses.record(LabelRecord, one) for one in document["labels"]]
    return found, int(document["total"]), int(document["generation"])


def _refusal(result: Mapping[str, Any]) -> tuple[int, str]:
    """Return why an image was refused, as status and text, without what it was called there."""
    error = result["error"]
    return int(error["status"]), str(error["detail"]).removeprefix(f"{result.get('image')}: ")
