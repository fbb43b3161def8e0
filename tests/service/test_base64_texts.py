"""Base64 in any spelling has one meaning."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsic_index.service import base64_texts


@given(st.binary(max_size=80), st.sampled_from(["", "\n", " "]), st.booleans())
def test_base64_has_one_meaning_in_all_spellings(
    content: bytes, blank: str, is_padded: bool
) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(content).decode()
        text = blank.join(text if is_padded else text.rstrip("="))
        assert base64_texts.decode(text) == content
        assert base64_texts.decode_data_url(f"data:;base64,{text}") == content
        assert base64_texts.decode_data_url(f"data:;base64,{quote(text)}") == content
    assert base64_texts.decode_data_url(f"data:text/plain,{quote(content)}") == content


@pytest.mark.parametrize("text", ["A", "AA=A", "AA==AA==", "A*AA", "é", "AAAA\0"])
def test_what_is_no_base64(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        base64_texts.decode(text)
