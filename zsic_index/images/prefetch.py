"""Preparation of images in threads, one batch ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from zsic_index.errors import ImageError
from zsic_index.images.opening import ImageSource
from zsic_index.parallel import batched

Prepared = TypeVar("Prepared")


def prepare_all(
    sources: Iterable[ImageSource],
    prepare: Callable[[ImageSource], Prepared],
    *,
    batch_size: int,
    threads: int,
) -> Iterator[list[Prepared | ImageError]]:
    """Prepare images in threads, one batch ahead of the one that is yielded.

    Args:
        sources: any number of image sources; read only as far as needed.
        prepare: function that decodes a source and reduces it to what is kept, run in a thread, so
            that at most ``threads`` full-size images are in memory; may raise ImageError.
        batch_size: number of images per batch.
        threads: number of threads.

    Yields:
        Batches in order; a refused image has its ImageError in its slot.
    """
    return prepare_batches(batched(sources, batch_size), prepare, threads=threads)


def prepare_batches(
    batches: Iterable[Sequence[ImageSource]],
    prepare: Callable[[ImageSource], Prepared],
    *,
    threads: int,
) -> Iterator[list[Prepared | ImageError]]:
    """Prepare batches of images, none of which is empty; see ``prepare_all``."""

    def prepare_or_refuse(source: ImageSource) -> Prepared | ImageError:
        try:
            return prepare(source)
        except ImageError as error:
            return error

    remaining = iter(batches)
    pending: list[Future[Prepared | ImageError]] = []
    with ThreadPoolExecutor(threads, thread_name_prefix="zsic-decode") as pool:
        try:
            pending = [pool.submit(prepare_or_refuse, source) for source in next(remaining, ())]
            while pending:
                current = pending
                pending = [pool.submit(prepare_or_refuse, source) for source in next(remaining, ())]
                yield [future.result() for future in current]
        finally:
            # A caller that stops early does not wait for images that it will not use.
            for future in pending:
                future.cancel()
