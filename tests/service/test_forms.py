"""Forms as clients send them, and what is no form."""

from __future__ import annotations

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsic_index.service.forms import parse_form
from zsic_index.web import RefusedError

TYPE = "multipart/form-data; boundary=b"
FIELD = b'Content-Disposition: form-data; name="top_k"'
FILE = b'content-disposition: form-data; name="images"; filename="a.png"'


@given(
    st.lists(st.tuples(st.text("ab.é🦊", min_size=1), st.binary()), max_size=5),
    st.dictionaries(st.text("abc", min_size=1), st.lists(st.text(), min_size=1, max_size=3)),
)
def test_forms_of_a_client(files: list[tuple[str, bytes]], fields: dict[str, list[str]]) -> None:
    parts = [(name, (None, text)) for name, texts in fields.items() for text in texts]
    request = httpx2.Request(
        "POST", "http://localhost", files=[*parts, *(("images", file) for file in files)]
    )
    if not files and not fields:
        return
    form = parse_form(request.read(), request.headers["content-type"], 5)
    assert form.fields == fields
    assert [(name, bytes(content)) for name, content in form.files] == files


@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
@pytest.mark.parametrize("start", [b"", b"\n", b"a preamble\n"])
def test_line_ends_and_preambles(newline: bytes, start: bytes) -> None:
    lines = [b"--b", FIELD, b"", b"3", b"--b", b"A: b", FILE, b"", b"1\n2\r\n3", b"--b--", b"x"]
    form = parse_form(start + newline.join(lines), TYPE, 1)
    assert form.fields == {"top_k": ["3"]}
    assert [(name, bytes(content)) for name, content in form.files] == [("a.png", b"1\n2\r\n3")]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "its boundary is missing"),
        (b"--c\r\n", 400, "its boundary is missing"),
        (b"--b\r\n\r\na\r\n--b--", 400, "no Content-Disposition header with a name"),
        (b"--b\r\n" + FILE + b"\r\n", 400, "no end within 8,192 bytes"),
        (b"--b\r\n" + FILE + b"\r\n\r\nabc", 400, "ends within a part"),
        (b"--b\r\n" + FILE + b"\r\n\r\nabc\r\n--bx", 400, "not followed by the end of its line"),
        ((b"--b\r\n" + FILE + b"\r\n\r\na\r\n") * 3 + b"--b--", 413, "more than 2 files"),
        ((b"--b\r\n" + FIELD + b"\r\n\r\na\r\n") * 1_001 + b"--b--", 413, "1,000 text fields"),
        (b"--b\r\n" + FIELD + b"\r\n\r\n" + b"a" * 65_537 + b"\r\n--b--", 413, "65,536 bytes"),
        (
            (b"--b\r\n" + FIELD + b"\r\n\r\n" + b"a" * 65_536 + b"\r\n") * 65 + b"--b--",
            413,
            "4,194,304 bytes in text fields",
        ),
        (
            (b"--b\r\n" + FIELD + b"; a=" + b"a" * 8_000 + b"\r\n\r\na\r\n") * 66 + b"--b--",
            413,
            "524,288 bytes of headers",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_form_is_refused(body: bytes, status: int, message: str) -> None:
    with pytest.raises(RefusedError, match=message) as error:
        parse_form(body, TYPE, 2)
    assert error.value.status == status


def test_a_boundary_is_needed() -> None:
    with pytest.raises(RefusedError, match="no boundary"):
        parse_form(b"--b--", "multipart/form-data", 2)
