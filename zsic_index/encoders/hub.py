"""Snapshots of Hub repositories: from the cache if complete there, else fetched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from zsic_index import builtin
from zsic_index.errors import ModelError


def fetch_snapshot(
    repo_id: str,
    revision: str | None,
    *,
    files: Sequence[str],
    find_missing: Callable[[Path], list[str]],
) -> tuple[Path, str]:
    """Return the folder of a repository's snapshot, and its commit.

    A complete snapshot in the cache is used without asking the Hub whether its branch has moved
    since; pass a newer commit, tag or branch as ``revision``.

    Args:
        repo_id: such as ``google/siglip-base-patch16-224``.
        revision: branch, tag or commit; None for ``main``.
        files: patterns of the files to fetch; files in subfolders are left out.
        find_missing: function that returns the names of needed files that a folder lacks.

    Raises:
        ModelError: when it is neither in the cache nor can be fetched, or lacks a file; the message
            says which, and the folders that were searched.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    download = partial(
        snapshot_download,
        repo_id,
        revision=revision,
        allow_patterns=list(files),
        ignore_patterns=["*/*"],
    )
    try:
        folder = Path(download(local_files_only=True))
        if not find_missing(folder):
            return folder, folder.name
    except HFValidationError:
        raise ModelError(
            f"model {repo_id!r} is neither a folder, a Hub id such as "
            f"openai/clip-vit-large-patch14, nor one of {', '.join(builtin.MODELS)}"
        ) from None
    except LocalEntryNotFoundError:
        pass
    try:
        folder = Path(download())
    except Exception as error:
        # The Hub's own errors, and those of the HTTP library that it uses.
        cached = Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}"
        raise ModelError(
            f"model {repo_id}: its files ({', '.join(files)}) are not in the Hub's cache on this "
            f"machine (looked in {cached} for revision {revision or 'main'}) and could not be "
            f"fetched ({_first_line(error)}): check the name and the network, or use a local "
            f"folder or one of {', '.join(builtin.MODELS)}"
        ) from error
    missing = find_missing(folder)
    if missing:
        # If the Hub cannot be reached, the download returns an incomplete snapshot.
        raise ModelError(
            f"model {repo_id}: {', '.join(missing)} not in {folder}, and not available from "
            "the Hub: check the network; only safetensors weights are loaded, and where a pull "
            "request on the Hub adds them, name it with --revision refs/pr/NUMBER"
        )
    return folder, folder.name


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
