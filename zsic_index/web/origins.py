"""Recognition of requests that a page of another origin has sent.

Browsers name the page's origin in ``Origin``, or say in ``Sec-Fetch-Site`` how it relates to the
server; pages cannot change either. Other programs send neither.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence


def own_origins(host: str) -> tuple[str, str]:
    """Return the origins of a server's own pages, given the Host header of a request.

    Both schemes count: a proxy may have ended TLS.
    """
    host = host.lower()
    return f"http://{host.removesuffix(':80')}", f"https://{host.removesuffix(':443')}"


def other_origin(origins: Sequence[str], site: str | None, own: Collection[str]) -> str | None:
    """Return the origin of the page that has sent a request, if it is not the server's own.

    Args:
        origins: values of the Origin header.
        site: value of the Sec-Fetch-Site header, or None without one.
        own: the server's own origins.

    Returns:
        None for the server's own pages, for what the user has opened, and for programs that are
        not browsers; ``null`` if the origin is not named.
    """
    if site == "same-origin":  # also where a proxy has changed the Host header
        return None
    for origin in origins:
        if origin.lower() not in own:
            return origin
    return None if site in (None, "none") else "null"
