"""Sidecars in generated shapes: merged, rewritten by others, merged again and undone."""

from __future__ import annotations

import unicodedata
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from tests.support.packets import TAG_LISTS, packets
from tests.support.sidecars import LEDGER, NAMES, ORIGIN, RDF, again, keywords, rest, tree
from zsic_index.library.sidecars.keywords import PROPERTIES, WRITTEN, Tag
from zsic_index.library.sidecars.merge import merge
from zsic_index.library.sidecars.packet import Encoding


def tag_of(kind: Any, value: str) -> tuple[str, ...]:
    """What a value says, told in the plainest way: levels as written, in lower case."""
    separator = kind.separator or "|"

    def plain(part: str) -> str:
        for sign, twin in (("/", "∕"), ("|", "∣")):
            part = part.replace(sign, twin)
        return unicodedata.normalize("NFC", unicodedata.normalize("NFC", part).casefold())

    return tuple(plain(part.strip()) for part in value.split(separator) if part.strip())


def same_tags(one: list[Tag], other: list[Tag]) -> bool:
    """Whether nothing is to be written, though order and case may differ."""
    kind = WRITTEN[0]
    sides = [{tag_of(kind, kind.value(tag.path)) for tag in tags} for tags in (one, other)]
    return sides[0] == sides[1]


@given(packets(), TAG_LISTS, TAG_LISTS)
@settings(max_examples=300, suppress_health_check=list(HealthCheck))
def test_whatever_the_shape(content: bytes, tags: list[Tag], others: list[Tag]) -> None:
    before = keywords(content)
    merged = merge(content, tags, None, origin=ORIGIN)
    assert merged.content is not None
    assert rest(merged.content) == rest(content)
    after = keywords(merged.content)
    users = {tag_of(kind, value) for kind in PROPERTIES for value in before.get(kind.name, [])} - {
        ()
    }
    for kind in PROPERTIES:
        old, new = before.get(kind.name, []), after.get(kind.name, [])
        assert new[: len(old)] == old
        if not kind.written or not (old or kind.created) or not tags:
            assert new == old
            continue
        said = [tag_of(kind, value) for value in new]
        put = [tag_of(kind, unicodedata.normalize("NFC", kind.value(tag.path))) for tag in tags]
        assert set(put) <= set(said)
        assert len(set(said[len(old) :])) == len(said[len(old) :])
        if old:
            assert set(said) == {tag_of(kind, value) for value in old} | set(put)
        elif kind.separator is None:
            assert set(said) == {path[-1:] for path in users} | set(put)
        else:
            levels = {part for path in users if len(path) > 1 for part in path}
            kept = {path for path in users if len(path) > 1 or path[0] not in levels}
            assert set(said) == kept | set(put)

    record = again(merged)
    assert merge(merged.content, tags, record, origin=None).content == merged.content
    anew = merge(merged.content, others, record, origin=ORIGIN)
    if not same_tags(tags, others):
        assert anew.content == merge(content, others, None, origin=ORIGIN).content
    assert merge(anew.content, [], again(anew), origin=None).content == content
    assert merge(merged.content, [], record, origin=None).content == content


@given(packets(), TAG_LISTS, TAG_LISTS, st.data())
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
def test_whatever_another_program_does_to_it(
    content: bytes, tags: list[Tag], others: list[Tag], data: st.DataObject
) -> None:
    merged = merge(content, tags, None, origin=ORIGIN)
    assert merged.content is not None
    record = again(merged)
    root = tree(merged.content)
    (rdf,) = root.iter(f"{RDF}RDF")
    etree.SubElement(rdf, f"{RDF}Description", {"{http://ns.adobe.com/xap/1.0/}Rating": "1"})
    lists = [
        held for held in root.iter(*NAMES) if len(held) and held.getparent().getparent() is rdf
    ]
    mine: dict[str, list[str]] = {}
    for held in data.draw(st.lists(st.sampled_from(lists), unique=True)) if lists else []:
        etree.SubElement(held[0], f"{RDF}li").text = "my own"
        mine[NAMES[held.tag]] = ["my own"]
    changed = etree.tostring(root, encoding=data.draw(st.sampled_from(["utf-8", "utf-16"])))

    undone = merge(changed, [], record, origin=None).content
    assert undone is not None
    anew = merge(changed, others, record, origin=ORIGIN)
    assert anew.rejected == ()
    assert merge(anew.content, [], again(anew), origin=None).content == undone
    more = merge(anew.content, tags, again(anew), origin=ORIGIN)
    assert merge(more.content, [], again(more), origin=None).content == undone
    same = merge(changed, tags, record, origin=ORIGIN)
    # Microsoft's property is kept up once there is something in it.
    if not set(mine) - set(keywords(merged.content)):
        assert same.content == changed

    before, after = keywords(content), keywords(undone)
    created = () if record is None else record.created
    users = {tag_of(kind, v) for kind in PROPERTIES for v in before.get(kind.name, [])}
    for kind in PROPERTIES:
        old, new = before.get(kind.name, []), after.get(kind.name, [])
        own = mine.get(kind.name, [])
        if old:
            assert new == old + own
        elif kind.name in created:
            # It goes with us, unless it is the only place of something that the user put in.
            assert new[-1:] == own or not new
            assert not new or own
            assert not own or any("my own" in values for values in after.values())
        else:
            # It was there and empty: the user's keywords that it started with stay in it.
            assert new[len(new) - len(own) :] == own
        levels = {part for path in users for part in path}
        assert {p for v in new for p in tag_of(kind, v)} <= levels | {"my own"}
    assert LEDGER[1:-1] not in undone.decode(Encoding.of(undone).name)
    assert "Rating" in undone.decode(Encoding.of(undone).name)
