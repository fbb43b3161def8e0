"""The page of a review in a real browser, by its keys, its buttons and on a phone."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.libraries import leaves, put, state, tag
from tests.support.stores import copy_store
from zsic_index import LabelIndex
from zsic_index.library.review.server import ReviewServer
from zsic_index.library.review.session import Review
from zsic_index.store import Store

NAMES = ("dog-face", "lion", "frog", "pizza", "red-apple", "2024/octopus", "2024/automobile")


@pytest.fixture
def root(tmp_path: Path, built_store: Callable[[str], Path], store: Path) -> Path:
    copy_store(built_store("library"), store)
    put(tmp_path / "photos", *NAMES)
    tag(tmp_path / "photos")
    return tmp_path / "photos"


@pytest.fixture
def review(root: Path) -> Iterator[Review]:
    with LabelIndex.open("things", decode="scaled", keep_images=True) as index:
        review = Review(index)
        yield review
        review.close()


@pytest.fixture
def refusals() -> set[int]:
    """The statuses that a test expects of answers; any other from 400 on fails it."""
    return set()


@pytest.fixture
def page(
    browser: Any, review: Review, refusals: set[int], request: pytest.FixtureRequest
) -> Iterator[Any]:
    """The page with the label ``lion`` open; nothing may go wrong in it, or leave this machine."""
    options = getattr(request, "param", {"viewport": {"width": 1280, "height": 800}})
    wrong: list[str] = []
    statuses: list[int] = []
    with ReviewServer(review) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        context = browser.new_context(**options)
        page = context.new_page()
        page.set_default_timeout(20_000)
        own = f"http://127.0.0.1:{server.server_port}/"
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console",
            lambda message: (
                message.type == "error"
                and not message.text.startswith("Failed to load resource")
                and wrong.append(message.text)
            ),
        )
        page.on("response", lambda answer: statuses.append(answer.status))
        page.on(
            "request",
            lambda request: request.url.startswith(own) or wrong.append(f"asked for {request.url}"),
        )
        page.goto(server.url)
        page.wait_for_selector(".tile")
        assert page.url == own, "the token has gone from the address"
        open_label(page, "lion")
        yield page
        context.close()
        server.shutdown()
        thread.join()
    assert not wrong
    assert {status for status in statuses if status >= 400} == refusals


def open_label(page: Any, name: str) -> None:
    page.keyboard.press("/")
    page.keyboard.type(name)
    page.wait_for_function(
        "name => document.querySelector('#labels .name')?.textContent === name", arg=name
    )
    page.keyboard.press("Enter")
    page.wait_for_function(
        "name => document.getElementById('label-name').textContent === name", arg=name
    )
    page.wait_for_function("() => document.activeElement.classList.contains('picture')")


def photos(page: Any) -> list[str]:
    """The names of the photos that are shown."""
    texts: list[str] = page.locator(".tile .about span").all_text_contents()
    return texts


def verdicts(page: Any) -> list[str | None]:
    names: list[str | None] = page.eval_on_selector_all(
        ".tile", "tiles => tiles.map((one) => one.dataset.verdict ?? null)"
    )
    return names


def path_of(root: Path, name: str) -> Path:
    (path,) = root.rglob(name)
    return path


def apply(page: Any, *, write: bool) -> str:
    page.click("#apply")
    page.wait_for_selector("#apply-now:enabled")
    page.set_checked("#write", write)
    page.click("#apply-now")
    page.wait_for_function(
        "() => document.getElementById('apply-summary').textContent.includes('changed')"
    )
    summary: str = page.inner_text("#apply-summary")
    page.keyboard.press("Escape")
    return summary


def test_rejects_accepts_and_sidecars(page: Any, root: Path) -> None:
    order = photos(page)
    assert order[0] == "lion.jpg"
    before = state(root)
    for key in "rrraa":
        page.keyboard.press(key)
    page.wait_for_function("() => document.getElementById('changes').textContent === '5'")
    assert verdicts(page) == ["rejected"] * 3 + ["accepted"] * 2 + [None] * 2
    assert state(root) == before, "nothing is written before it is applied"

    summary = apply(page, write=True)
    assert "2 photos changed: 2 tags added, 0 withdrawn." in summary
    assert page.is_hidden("#changes")
    for name in order[:3]:
        assert "lion" not in leaves(path_of(root, name))
    for name in order[3:5]:
        assert "lion" in leaves(path_of(root, name))
        sidecar = path_of(root, f"{name}.xmp").read_text(encoding="utf-8")
        assert "<rdf:li>lion</rdf:li>" in sidecar
        assert "<rdf:li>ai/animals/mammals/lion</rdf:li>" in sidecar
    others = [path.read_text(encoding="utf-8") for path in root.rglob("*.xmp")]
    assert sum(">lion<" in sidecar for sidecar in others) == 2
    assert {name: of for name, of in state(root).items() if not name.endswith(".xmp")} == before
    with Store.open() as store:
        stored = {photo.name: photo for photo in store.photos.iterate()}
        verdicts_of = store.verdicts.find(photo.content_hash for photo in stored.values())
        given = [list(verdicts_of.get(stored[name].content_hash, {}).values()) for name in order]
    assert given == [["rejected"]] * 3 + [["accepted"]] * 2 + [[]] * 2


def test_undo_the_same_key_and_filters(page: Any) -> None:
    order = photos(page)
    page.keyboard.press("a")
    page.keyboard.press("u")
    page.keyboard.press("Control+z")
    page.wait_for_function("() => document.querySelectorAll('[data-verdict]').length === 1")
    assert verdicts(page)[:2] == ["accepted", None]
    page.get_by_role("button", name=re.compile("^Undecided")).click()
    page.wait_for_function("() => document.querySelectorAll('.tile').length === 6")
    assert photos(page) == order[1:]
    page.get_by_role("button", name=re.compile("^Accepted 1")).click()
    page.wait_for_function("() => document.querySelectorAll('.tile').length === 1")
    page.locator(".tile .picture").focus()
    page.keyboard.press("a")
    page.wait_for_function("() => document.querySelectorAll('[data-verdict]').length === 0")


def test_arrows_labels_help_and_large(page: Any) -> None:
    here = "() => document.activeElement.closest('.tile')?.querySelector('.about span').textContent"
    order = photos(page)
    for key, place in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("ArrowLeft", 0)):
        page.keyboard.press(key)
        assert page.evaluate(here) == order[place]
    page.keyboard.press("Enter")
    page.wait_for_selector("#large[open]")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        f"() => document.getElementById('large-name').textContent === '{order[1]}'"
    )
    page.wait_for_function("() => document.getElementById('large-image').naturalWidth > 0")
    page.keyboard.press("r")
    page.keyboard.press("Escape")
    page.wait_for_function(f"name => ({here})() === name", arg=order[2])
    assert verdicts(page)[1] == "rejected"
    page.keyboard.press("?")
    page.wait_for_selector("#help[open]")
    page.keyboard.press("a")
    page.keyboard.press("Escape")
    assert verdicts(page).count("accepted") == 0
    page.fill("#search", "")
    page.wait_for_function("() => document.querySelectorAll('#labels li').length === 12")
    first = page.locator("#labels .name").all_text_contents()
    at = first.index("lion")
    page.locator(".tile .picture").first.focus()
    page.keyboard.press("p" if at else "n")
    other = first[at - 1] if at else first[1]
    page.wait_for_function(
        "name => document.getElementById('label-name').textContent === name", arg=other
    )


def test_the_threshold_counts_is_fitted_and_used(
    page: Any, review: Review, refusals: set[int]
) -> None:
    refusals.add(400)
    lion = review.search_labels("lion", 0, 1)[1][0].label.label_id
    probabilities = review.probabilities(lion)
    for percent in ("0", "100", f"{probabilities[2] * 100}"):
        page.fill("#percent", percent)
        number = int((probabilities >= float(percent) / 100).sum())
        photo = "photo" if number == 1 else "photos"
        assert page.inner_text("#above") == f"{number} {photo} above"
    page.focus("#slider")
    page.keyboard.press("Home")
    low = page.inner_text("#above")
    page.keyboard.press("End")
    assert page.inner_text("#above") != low
    page.click("#fit")
    page.wait_for_function("() => notice.textContent.includes('needs at least 3 of each')")
    page.locator(".tile .picture").first.focus()
    for key in "aaarrr":
        page.keyboard.press(key)
    page.click("#fit")
    page.wait_for_function("() => document.getElementById('threshold-note').textContent")
    assert "best cut between accepted and rejected" in page.inner_text("#threshold-note")
    assert page.inner_text("#above") == "3 photos above"
    page.click("#use")
    page.wait_for_selector("#reset:visible")
    assert review.thresholds(lion).own == probabilities[2]
    page.click("#reset")
    page.wait_for_selector("#reset", state="hidden")
    assert review.thresholds(lion).own is None


PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.mark.parametrize("page", [PHONE, PHONE | {"color_scheme": "dark"}], indirect=True)
def test_on_a_phone(page: Any, root: Path) -> None:
    wide = "() => document.documentElement.scrollWidth > window.innerWidth"
    assert not page.evaluate(wide)
    assert page.is_hidden("#picker")
    page.locator(".tile [data-decide=accepted]").nth(1).tap()
    page.wait_for_selector(".tile[data-verdict=accepted]")
    assert verdicts(page)[:3] == [None, "accepted", None]
    page.tap("#open-labels")
    page.wait_for_selector("#labels button:visible")
    page.fill("#search", "frog")
    page.wait_for_selector("#labels .name:text-is('frog')")
    page.locator("#labels button").tap()
    page.wait_for_function("() => document.getElementById('label-name').textContent === 'frog'")
    page.locator(".tile .picture").first.tap()
    page.wait_for_selector("#large[open]")
    page.locator("#large [data-decide=rejected]").tap()
    page.wait_for_function("() => document.getElementById('changes').textContent === '2'")
    assert not page.evaluate(wide)
    assert leaves(root / "frog.jpg") == []


def test_a_photo_that_is_gone_says_so(page: Any, root: Path, refusals: set[int]) -> None:
    refusals.add(422)
    (root / "lion.jpg").unlink()
    # The picture in large is asked for anew, whatever is held of the small one.
    with page.expect_response(lambda answer: answer.url.endswith("/large")) as answered:
        page.locator(".tile .picture").first.click()
    assert answered.value.status == 422
    page.wait_for_function("() => notice.textContent.includes('cannot be read')")
