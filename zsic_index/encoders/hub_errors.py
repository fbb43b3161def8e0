"""Explain errors of the Hub's client: what is wrong, and the next step, in one line."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path

from zsic_index.errors import first_line

_LOG_IN = "log in with `hf auth login` or set HF_TOKEN"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_BROKEN = {"RemoteProtocolError", "ReadError", "ReadTimeout", "XetDownloadError"}
"""Errors of a transfer, by name: huggingface_hub 1 raises those of httpx, 2 those of httpx2."""


def explain(error: BaseException, repo_id: str, revision: str | None) -> str | None:
    """Return the reason of a failed download and the next step.

    None if it is another one, such as a network that is down.

    Args:
        error: exception that huggingface_hub raised.
        repo_id: repository that was to be fetched.
        revision: branch, tag or commit; None for ``main``.
    """
    for cause in _causes(error):
        reason = (
            _explain_answer(cause, repo_id, revision)
            or _explain_disk(cause)
            or _explain_transfer(cause)
        )
        if reason is not None:
            return reason
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _explain_answer(error: BaseException, repo_id: str, revision: str | None) -> str | None:
    """Explain an error that the Hub, or a proxy in its place, answered with."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{repo_id}"
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
    match error:
        case errors.GatedRepoError() if status == 401:
            return f"access to it is restricted: accept its terms on {page}, then {_LOG_IN}"
        case errors.GatedRepoError():
            return (
                f"access to it is restricted and your account does not have it: accept its terms "
                f"on {page} and wait for approval if they say so; a fine-grained token must be "
                "allowed to read gated repositories"
            )
        case errors.RevisionNotFoundError():
            return (
                f"there is no revision {revision or 'main'!r}: take a branch, tag or commit of "
                f"{page}/commits/main, or a pull request as refs/pr/NUMBER"
            )
        case errors.RepositoryNotFoundError():
            return (
                f"{constants.ENDPOINT} has no such repository, or it is private: check the name, "
                f"or {_LOG_IN}"
            )
        case errors.DisabledRepoError():
            return f"the repository is disabled, see {page}: take another model"
        case errors.HfHubHTTPError() if status == 401:
            return (
                f"{constants.ENDPOINT} refuses your token: log in again with `hf auth login`, or "
                "set HF_TOKEN to a valid one"
            )
        case errors.HfHubHTTPError() if status == 429:
            wait = error.response.headers.get("retry-after", "")
            pause = f"{wait} seconds" if wait.isdigit() else "a few minutes"
            return (
                f"{constants.ENDPOINT} limits requests (429): wait {pause} and run the command "
                f"again, or {_LOG_IN} for a higher limit"
            )
        case errors.HfHubHTTPError() if status >= 500:
            return f"{constants.ENDPOINT} is out of order ({status}): run the command again later"
        case errors.HfHubHTTPError() if status in (403, 407):
            return (
                f"{constants.ENDPOINT} or a proxy refuses access ({status}): check the rights of "
                "your token, and HTTPS_PROXY"
            )
        case errors.FileMetadataError() | json.JSONDecodeError():
            return (
                f"{constants.ENDPOINT} does not answer as the Hub does: check whether a proxy or a "
                "login page is in between, and HF_ENDPOINT and HTTPS_PROXY"
            )
        case _:
            return None


def _explain_disk(error: BaseException) -> str | None:
    from huggingface_hub import constants

    if not isinstance(error, OSError):
        return None
    cache = Path(constants.HF_HUB_CACHE)
    if error.errno in _NO_SPACE:
        return (
            f"no space is left in {cache}: free some and run the command again, or set "
            "HF_HUB_CACHE to a folder on another disk"
        )
    if error.errno in _NOT_WRITABLE:
        return (
            f"{error.filename or cache} cannot be written ({error.strerror}): change its rights, "
            "or set HF_HUB_CACHE to another folder"
        )
    return None


def _explain_transfer(error: BaseException) -> str | None:
    names = {kind.__name__ for kind in type(error).__mro__}
    message = first_line(error)
    if names & _BROKEN or message.startswith("Consistency check failed"):
        return (
            f"the connection broke off ({message[:120]}): run the command again; files that are "
            "complete are kept"
        )
    return None
