"""The frame and the look that all HTML pages share: one file, nothing loaded from elsewhere."""

from __future__ import annotations

import html


def document(title: str, style: str, body: str) -> str:
    """Return a whole page.

    Args:
        title: as text; it is escaped.
        style: CSS of this page, after what all pages have.
        body: HTML between ``<body>`` and ``</body>``.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{_STYLE}{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #4c78a8; --right: #23724a;
  --wrong: #b3393e; }
@media (prefers-color-scheme: dark) {
  :root { --bar: #6b9bd1; --right: #55bd86; --wrong: #f08a8d; }
}
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 76rem; padding: 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h1 small { font-weight: 400; opacity: .7; }
figure { border: 1px solid var(--line); border-radius: .5rem; margin: 0; padding: .75rem; }
img { display: block; height: 9rem; margin: 0 auto; max-width: 100%; object-fit: contain; }
figcaption { font-size: .8rem; opacity: .7; padding: .4rem 0; text-align: center; }
"""
