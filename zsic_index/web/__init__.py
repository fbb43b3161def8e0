"""Parts that the service and the review server share: headers, refusals, JavaScript modules."""

from zsic_index.web.refusal import RefusedError
from zsic_index.web.security import SECURITY_HEADERS

__all__ = ["SECURITY_HEADERS", "RefusedError"]
