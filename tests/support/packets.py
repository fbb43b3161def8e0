"""Random XMP packets, in any shape that XMP allows."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.support.sidecars import RDF
from zsic_index.errors import InputError
from zsic_index.library.sidecars.keywords import PROPERTIES, Tag, check_tag

PARTS = st.text(
    st.sampled_from("abAB &<>'\"|/e\u0301é鷺🦌]") | st.characters(codec="utf-8"),
    min_size=1,
    max_size=5,
).filter(lambda text: _fits(text))
PATHS = st.lists(PARTS, min_size=1, max_size=3).map(tuple)
TAG_LISTS = st.lists(st.builds(Tag, PATHS), max_size=4)


def _fits(text: str) -> bool:
    try:
        return check_tag((text,)) == (text,)
    except InputError:
        return False


def escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def quote(text: str) -> str:
    return '"' + escape(text).replace('"', "&quot;") + '"'


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """Draw a sidecar in some shape that XMP allows."""
    newline = draw(st.sampled_from(["\n", "\r\n", ""]))
    rdf = draw(st.sampled_from(["rdf:", "r:", "dc:"]))
    bare = draw(st.booleans()) and not draw(st.booleans())  # RDF as the default namespace

    def tag(local: str) -> str:
        return local if bare else rdf + local

    def items(values: list[str]) -> str:
        parts = []
        for value in values:
            before = draw(st.sampled_from(["", " ", f"{newline}  ", "<!-- <li> -->"]))
            language = draw(st.sampled_from(["", ' xml:lang="en"']))
            text = draw(st.sampled_from([escape(value), value.replace("&", "&#38;")]))
            text = text if "<" not in text and "]]>" not in text else escape(value)
            parts.append(f"{before}<{tag('li')}{language}>{text}</{tag('li')}>")
        return "".join(parts) + draw(st.sampled_from(["", f"{newline} "]))

    def held(kind: Any, prefix: str) -> tuple[str, str]:
        """Draw a property as an attribute and as an element, one of them empty."""
        form = draw(st.sampled_from(["list", "list", "list", "text", "attribute", "none", "empty"]))
        name = f"{prefix}:{kind.local}"
        values = draw(st.lists(PARTS, min_size=1, max_size=4))
        if form == "attribute":
            return f" {name}={quote(values[0])}", ""
        if form == "text":
            return "", f"<{name}>{escape(values[0])}</{name}>"
        if form == "none":
            return "", draw(st.sampled_from([f"<{name}/>", f"<{name}> </{name}>"]))
        container = tag(draw(st.sampled_from(["Bag", "Seq", "Alt"])))
        if form == "empty":
            return "", f"<{name}><{container}/></{name}>"
        return "", f"<{name}>{newline}<{container}>{items(values)}</{container}>{newline}</{name}>"

    kinds = draw(st.lists(st.sampled_from(PROPERTIES), unique=True, max_size=5))
    count = draw(st.integers(1 if kinds else 0, 3))
    descriptions = []
    for number in range(count):
        prefixes = {kind: f"p{i}" for i, kind in enumerate(kinds) if i % count == number}
        forms = [held(kind, prefix) for kind, prefix in prefixes.items()]
        declared = "".join(f' xmlns:{p}="{kind.uri}"' for kind, p in prefixes.items())
        others = draw(
            st.sampled_from(["", ' xmlns:u="http://example.org/u#" u:a=\'1 > "0"\' u:b=""'])
        )
        about = draw(st.sampled_from(['""', "'uuid:1'"]))
        about = f" {'rdf:' if bare else rdf}about={about}"
        attributes = [about, declared, others, *(attribute for attribute, _ in forms)]
        inner = "".join(f"{newline}  {element}" for _, element in forms if element)
        inner += draw(st.sampled_from(["", "<!-- c -->", f'<v:w xmlns:v="v:#">{newline}</v:w>']))
        name = tag("Description")
        descriptions.append(
            f"{newline} <{name}{''.join(attributes)}/>"
            if not inner
            else f"{newline} <{name}{''.join(attributes)}>{inner}{newline} </{name}>"
        )
    uri = RDF.strip("{}")
    declared = f' xmlns="{uri}" xmlns:rdf="{uri}"' if bare else f' xmlns:{rdf[:-1]}="{uri}"'
    name = tag("RDF")
    text = f"<{name}{declared}>{''.join(descriptions)}{newline}</{name}>"
    if not descriptions and draw(st.booleans()):
        text = f"<{name}{declared}/>"
    if draw(st.booleans()):
        text = f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{newline}{text}{newline}</x:xmpmeta>'
    if draw(st.booleans()):
        padding = draw(st.sampled_from(["", " " * 50 + "\n", "\n"]))
        text = f"<?xpacket begin='' id='W'?>{newline}{text}{padding}<?xpacket end='w'?>"
    encoding, mark = draw(
        st.sampled_from(
            [
                ("utf-8", b""),
                ("utf-8", b"\xef\xbb\xbf"),
                ("utf-16-le", b"\xff\xfe"),
                ("utf-16-be", b"\xfe\xff"),
            ]
        )
    )
    return mark + text.encode(encoding)
