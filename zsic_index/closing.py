"""What ``with`` closes at its end."""

from __future__ import annotations

from typing import Self


class Closing:
    """Something that has a ``close``."""

    def close(self) -> None:
        """Let go of what it holds."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
