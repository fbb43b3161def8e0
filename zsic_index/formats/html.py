"""HTML pages from the Jinja2 templates in ``templates/``; every value is escaped."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from zsic_index.formats.text import percent

_ENVIRONMENT = Environment(
    loader=PackageLoader("zsic_index.formats"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters |= {
    "percent": percent,
    "count": "{:,}".format,
    "css_percent": "{:.2%}".format,
}


def render(template: str, **values: object) -> str:
    """Return a self-contained HTML page.

    Args:
        template: file name below ``templates/``.
        values: variables of the template; text in them is escaped.

    Raises:
        jinja2.UndefinedError: when the template uses a variable that is missing.
    """
    return _ENVIRONMENT.get_template(template).render(values)
