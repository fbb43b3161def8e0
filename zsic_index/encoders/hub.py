"""Snapshots of Hub repositories: from the cache if complete there, else fetched."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from fnmatch import fnmatch
from pathlib import Path

from zsic_index import builtin
from zsic_index.encoders.hub_errors import explain
from zsic_index.encoders.weights import INDEX_SUFFIX, choose_weights
from zsic_index.errors import ModelError, first_line

_show_bars: ContextVar[bool] = ContextVar("show_bars", default=True)


def fetch_snapshot(
    repo_id: str,
    revision: str | None,
    *,
    files: Sequence[str],
    weights: Sequence[str],
    find_missing: Callable[[Path], list[str]],
) -> tuple[Path, str]:
    """Return the folder of a repository's snapshot, and its commit.

    A complete snapshot in the cache is used without asking the Hub whether its branch has moved
    since; pass a newer commit, tag or branch as ``revision``.

    Args:
        repo_id: such as ``google/siglip-base-patch16-224``.
        revision: branch, tag or commit; None for ``main``.
        files: patterns of the files to fetch; files in subfolders are left out.
        weights: names of weights, or of their indexes, of which the first complete ones are
            fetched.
        find_missing: function that returns the names of needed files that a folder lacks.

    Raises:
        ModelError: when it is neither in the cache nor can be fetched, or lacks a file; the message
            says why, and what to do.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError

    cached = Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}"
    lack = (
        f"its files ({', '.join([*files, *weights])}) are not in the Hub's cache on this machine "
        f"(looked in {cached} for revision {revision or 'main'})"
    )
    try:
        folder = Path(
            snapshot_download(
                repo_id,
                revision=revision,
                local_files_only=True,
                allow_patterns=list(files),
                ignore_patterns=["*/*", f"*{INDEX_SUFFIX}"],
            )
        )
        missing = find_missing(folder)
        if not missing:
            return folder, folder.name
        lack = f"{', '.join(missing)} not in {folder}"
    except HFValidationError:
        raise ModelError(
            f"model {repo_id!r} is neither a folder, a Hub id such as "
            f"openai/clip-vit-large-patch14, nor one of {', '.join(builtin.MODELS)}"
        ) from None
    except OSError:
        # Not in the cache, in part, or not readable: the download says why if it fails too.
        pass
    try:
        with _bars():
            folder = _download(repo_id, revision, files, weights)
    except ModelError:
        raise
    except Exception as error:
        # The Hub's own errors, and those of the HTTP library that it uses.
        reason = explain(error, repo_id, revision) or (
            f"{lack} and could not be fetched ({first_line(error)[:200]}): check the network and "
            f"the name, or use a local folder or one of {', '.join(builtin.MODELS)}"
        )
        raise ModelError(f"model {repo_id}: {reason}") from error
    missing = find_missing(folder)
    if missing:
        raise _lacking(repo_id, revision, missing)
    return folder, folder.name


def name_weights(weights: Sequence[Path], candidates: Sequence[str]) -> list[str]:
    """Return the part of a fingerprint that tells a commit's weights apart.

    A commit may hold the same weights in several formats, and nothing says that they are equal.

    Args:
        weights: files that are loaded.
        candidates: names of weights in order of preference; the first needs no name.
    """
    names = [path.name for path in weights]
    return [] if names == [candidates[0]] else names


@contextmanager
def quiet_downloads() -> Iterator[None]:
    """Show no progress bars while snapshots are fetched."""
    token = _show_bars.set(False)
    try:
        yield
    finally:
        _show_bars.reset(token)


@contextmanager
def _bars() -> Iterator[None]:
    """Hide the bars of huggingface_hub, which it draws on standard error, if they should be."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if _show_bars.get() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _download(
    repo_id: str, revision: str | None, files: Sequence[str], weights: Sequence[str]
) -> Path:
    """Fetch a snapshot: the files of the patterns, and the first complete weights."""
    from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download

    info = HfApi().model_info(repo_id, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    names = {sibling.rfilename for sibling in info.siblings or ()}
    chosen, lacking = choose_weights(
        weights,
        exists=names.__contains__,
        locate=lambda name: Path(hf_hub_download(repo_id, name, revision=info.sha)),
    )
    if lacking and not chosen:
        raise _lacking(repo_id, revision, lacking)
    others = [
        name
        for name in names
        if "/" not in name
        and not name.endswith(INDEX_SUFFIX)
        and any(fnmatch(name, pattern) for pattern in files)
    ]
    patterns = [glob.escape(name) for name in (*others, *chosen)]
    return Path(snapshot_download(repo_id, revision=revision, allow_patterns=patterns))


def _lacking(repo_id: str, revision: str | None, names: Sequence[str]) -> ModelError:
    return ModelError(
        f"model {repo_id}: no {', '.join(names)} in revision {revision or 'main'} of the "
        "repository: take another one with --revision; some have weights only in a pull request, "
        "refs/pr/NUMBER"
    )
