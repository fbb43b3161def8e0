"""Parts that both servers share: headers, origins, refusals, JavaScript modules."""

from zsic_index.web.refusal import RefusedError
from zsic_index.web.security import SECURITY_HEADERS

__all__ = ["SECURITY_HEADERS", "RefusedError"]
