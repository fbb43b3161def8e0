"""The page of the service in a real browser: by mouse, by keys, on a phone, and when it fails."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.libraries import SAMPLES, TAXONOMY
from tests.support.services import serving
from zsic_index import LabelIndex
from zsic_index.store import Store
from zsic_index.web import SECURITY_HEADERS

TRANSLATED = "label,lang:de\nlion,Löwe\nfrog,Frosch\npizza,Pizza\n"
TOKEN = "the-token-of-these-tests"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SMALL = PHONE | {"viewport": {"width": 360, "height": 640}, "color_scheme": "dark"}


# Notes which files have an address of their own.
OBJECT_URLS = """
    window.objectUrls = new Set();
    const { createObjectURL, revokeObjectURL } = URL;
    URL.createObjectURL = (of) => {
        const url = createObjectURL.call(URL, of);
        window.objectUrls.add(url);
        return url;
    };
    URL.revokeObjectURL = (url) => {
        window.objectUrls.delete(url);
        revokeObjectURL.call(URL, url);
    };
"""


@pytest.fixture(scope="module")
def served_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    (folder / "things.txt").write_text(TAXONOMY, encoding="utf-8")
    (folder / "translated.csv").write_text(TRANSLATED, encoding="utf-8")
    for file in ("things.txt", "translated.csv"):
        LabelIndex.build(
            folder / file, model="builtin:clip", name=Path(file).stem, store=folder / "store.db"
        ).close()
    return folder / "store.db"


@pytest.fixture(scope="module")
def address(served_store: Path) -> Iterator[str]:
    with serving(served_store, device="cpu", max_template_sets=2) as served:
        yield f"{served.url}/"


@pytest.fixture
def refusals() -> set[int]:
    """The statuses that a test expects of answers; any other from 400 on fails it."""
    return set()


@dataclass
class Tab:
    """A page, and what has gone wrong in it, or has left this machine."""

    page: Any
    wrong: list[str] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)

    def check(self, refusals: set[int]) -> None:
        wrong, statuses = self.wrong[:], self.statuses.copy()
        self.wrong.clear()
        self.statuses.clear()
        assert not wrong
        assert {status for status in statuses if status >= 400} == refusals


@contextmanager
def opened(browser: Any, address: str, options: dict[str, Any]) -> Iterator[Tab]:
    context = browser.new_context(**options)
    page = context.new_page()
    tab = Tab(page)
    page.set_default_timeout(20_000)
    page.add_init_script(OBJECT_URLS)
    page.on("pageerror", lambda error: tab.wrong.append(str(error)))
    page.on(
        "console",
        lambda message: (
            message.type in ("error", "warning")
            and not message.text.startswith("Failed to load resource")
            and tab.wrong.append(message.text)
        ),
    )
    page.on("response", lambda answer: tab.statuses.add(answer.status))
    own = (address, f"blob:{address}", "data:")
    page.on(
        "request",
        lambda request: request.url.startswith(own) or tab.wrong.append(f"asked for {request.url}"),
    )
    try:
        yield tab
    finally:
        context.close()


@pytest.fixture(scope="module")
def tab(browser: Any, address: str) -> Iterator[Tab]:
    with opened(browser, address, {"viewport": {"width": 1280, "height": 800}}) as tab:
        yield tab


@pytest.fixture
def page(tab: Tab, address: str, refusals: set[int]) -> Iterator[Any]:
    """The page, as new."""
    tab.page.goto(address)
    ready(tab.page)
    yield tab.page
    tab.page.unroute_all()
    tab.check(refusals)


def ready(page: Any) -> None:
    page.wait_for_function("() => document.getElementById('index').options.length === 2")
    assert page.input_value("#index") == "things"


def choose(page: Any, *names: str) -> None:
    """Choose sample pictures, and wait for all answers."""
    page.set_input_files("#files", [SAMPLES[name] for name in names])
    answered(page)


def answered(page: Any) -> None:
    page.wait_for_function(
        """() => document.querySelector('.card')
            && !document.querySelector('[aria-busy], progress.busy')"""
    )


def labels(page: Any, card: int = 0, column: int = 0) -> list[str]:
    """The labels of a card's answer, best first."""
    answer = page.locator(".card").nth(card).locator(".answer").nth(column)
    names: list[str] = answer.locator(".name").all_text_contents()
    return names


def transfer(page: Any, name: str, content: bytes, kind: str = "image/png") -> Any:
    """A DataTransfer of the page that has a file in it."""
    return page.evaluate_handle(
        """([name, content, kind]) => {
            const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type: kind }));
            return transfer;
        }""",
        [name, base64.b64encode(content).decode(), kind],
    )


def is_wide(page: Any) -> bool:
    wide: bool = page.evaluate("() => document.documentElement.scrollWidth > window.innerWidth")
    return wide


def test_chosen_images_get_labels_with_their_numbers(page: Any, served_store: Path) -> None:
    choose(page, "lion", "pizza")
    assert page.locator("h3").all_text_contents() == [SAMPLES["lion"].name, SAMPLES["pizza"].name]
    with LabelIndex.open("things", store=served_store) as index:
        answers = index.classify([SAMPLES["lion"], SAMPLES["pizza"]], top_k=5)
    for card, predictions in enumerate(answers):
        assert labels(page, card) == [prediction.label for prediction in predictions]
        similarities = page.locator(".card").nth(card).locator(".similarity").all_text_contents()
        assert similarities == [
            f"similarity {prediction.similarity:.4f}" for prediction in predictions
        ]
    assert labels(page)[0] == "lion"
    first = page.locator(".labels .percent").first.text_content()
    assert first == f"{answers[0][0].probability * 100:.1f}\u00a0%"
    assert page.inner_text("#status") == "2 images classified."
    facts = page.inner_text("#facts")
    assert all(word in facts for word in ("12", "builtin:clip", "softmax", "This is a photo of"))
    # The pictures are shown, and the files behind their addresses are let go.
    page.wait_for_function(
        "() => [...document.querySelectorAll('.picture img')].every((one) => one.naturalWidth)"
    )
    page.wait_for_function("() => window.objectUrls.size === 0")


@pytest.mark.parametrize(
    "path", ["", "page/app.js", "page/shared/dom.js", "v1/indexes", "v1/nowhere", "page/nowhere"]
)
def test_every_response_has_the_security_headers(address: str, path: str) -> None:
    response = httpx2.get(f"{address}{path}")
    assert response.status_code == (404 if path.endswith("nowhere") else 200)
    for name, value in SECURITY_HEADERS.items():
        assert response.headers.get_list(name) == [value]
    assert "unsafe" not in response.headers["Content-Security-Policy"]


def test_dropped_and_pasted_images(page: Any) -> None:
    content = SAMPLES["lion"].read_bytes()
    dropped = transfer(page, "a lion.png", content)
    page.dispatch_event("body", "dragover", {"dataTransfer": dropped})
    assert page.evaluate("() => document.body.classList.contains('dragged')")
    page.dispatch_event("#choose", "drop", {"dataTransfer": dropped})
    answered(page)
    assert not page.evaluate("() => document.body.classList.contains('dragged')")
    pasted = transfer(page, "image.png", SAMPLES["frog"].read_bytes())
    page.evaluate(
        """clipboardData => document.body.dispatchEvent(
            new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }))""",
        pasted,
    )
    page.wait_for_selector("h3:text-is('pasted 1.png')")
    answered(page)
    assert page.locator("h3").all_text_contents() == ["a lion.png", "pasted 1.png"]
    assert [labels(page, 0)[0], labels(page, 1)[0]] == ["lion", "frog"]


def test_by_keys_alone(page: Any) -> None:
    def tab_to(selector: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                ring = "() => getComputedStyle(document.activeElement).outlineStyle"
                assert page.evaluate(ring) == "solid", "the focus can be seen"
                return
        raise AssertionError(f"Tab does not get to {selector}")

    # Listened for from the beginning: a chooser that opens before is a real one.
    page.on("filechooser", lambda chooser: None)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the link past the controls
    page.wait_for_function("() => document.activeElement.id === 'main'")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.id") == "choose"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([SAMPLES["lion"], SAMPLES["frog"]])
    answered(page)
    assert labels(page)[0] == "lion"
    page.keyboard.press("Shift+Tab")
    for _ in range(12):
        if page.evaluate("() => document.activeElement.id") == "top-k":
            break
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.wait_for_function("() => document.querySelectorAll('.labels li').length === 2 * 3")
    tab_to("[aria-label^='Remove']")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelectorAll('.card').length === 1")
    left = page.evaluate("() => document.activeElement.getAttribute('aria-label')")
    assert left == f"Remove {SAMPLES['frog'].name}"
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "choose"


def test_a_broken_image_has_its_error_in_its_place(
    page: Any, tmp_path: Path, refusals: set[int]
) -> None:
    markup = tmp_path / "<img src=x onerror=alert(1)>.heic"
    markup.write_bytes(b"no image")
    page.set_input_files("#files", [markup, SAMPLES["lion"]])
    answered(page)
    assert page.locator("h3").first.text_content() == markup.name
    error = page.locator(".card").first.locator(".error").text_content()
    assert error.startswith("Refused (415)")
    assert "not an image of a known format" in error
    assert labels(page, 1)[0] == "lion"
    assert page.inner_text("#status") == "1 image classified, 1 refused."
    page.wait_for_selector(".ending:text-is('heic')")
    # Alone, its request is refused as a whole; its error is still its own.
    refusals.add(415)
    page.click("#clear")
    page.set_input_files("#files", markup)
    answered(page)
    assert page.locator(".card .error").count() == 1
    assert page.is_hidden("#trouble")


def test_two_sets_of_templates_side_by_side(page: Any, served_store: Path) -> None:
    choose(page, "octopus", "lion")
    page.select_option("#compare", label="a template of your own")
    page.fill("#own", "no place for the label")
    page.wait_for_selector("#own[aria-invalid=true]")
    assert page.locator(".answer").count() == 2
    held: list[Any] = []
    page.route("**/v1/classify", lambda route: held.append(route))
    page.fill("#own", "a {}, painted.")
    page.wait_for_selector("#status:text-is('Encoding 12 prompts, which is done once…')")
    assert page.locator(".answer[aria-busy]").count() == 2
    page.unroute("**/v1/classify")  # goes on with those that are held
    answered(page)
    assert page.locator(".card").first.locator("h4").all_text_contents() == [
        "This is a photo of {}.",
        "a {}, painted.",
    ]
    with LabelIndex.open("things", store=served_store) as index:
        under = index.with_templates("a {}, painted.")
        for card, name in enumerate(("octopus", "lion")):
            own, other = (
                [prediction.label for prediction in of.classify(SAMPLES[name], top_k=5)]
                for of in (index, under)
            )
            assert labels(page, card, 0) == own
            assert labels(page, card, 1) == other
            lines = page.locator(".card").nth(card).locator(".answer").nth(1).locator("li")
            moved = [
                "moved" in (lines.nth(at).get_attribute("class") or "") for at in range(len(other))
            ]
            assert moved == [
                label not in own or own.index(label) != at for at, label in enumerate(other)
            ]
            for at in range(len(other)):
                if other[at] not in own:
                    assert "only here" in lines.nth(at).text_content()
    page.select_option("#compare", "")
    page.wait_for_function("() => document.querySelectorAll('.answer').length === 2")


def test_templates_are_compared_only_where_they_are_accepted(
    page: Any, browser: Any, served_store: Path
) -> None:
    is_hidden = "() => document.getElementById('compare-field').hidden"
    assert page.evaluate(is_hidden) is False
    with serving(served_store, device="cpu") as served, opened(browser, served.url, {}) as tab:
        tab.page.goto(served.url)
        ready(tab.page)
        assert tab.page.evaluate(is_hidden) is True
        choose(tab.page, "lion")
        assert labels(tab.page)[0] == "lion"
        tab.check(set())


def test_what_can_be_asked(page: Any) -> None:
    choose(page, "lion")
    page.select_option("#rank", "depth 1")
    page.wait_for_selector(".name:text-is('mammals')")
    assert page.locator(".more").first.text_content() == "animals"
    assert page.locator(".similarity").count() == 0
    assert page.is_disabled("#among")
    page.select_option("#rank", "")
    page.select_option("#among", "under")
    page.fill("#under", "food")
    page.wait_for_function("() => document.querySelectorAll('.labels li').length === 3")
    assert set(labels(page)) == {"food", "red apple", "pizza"}
    assert "over the index" in page.locator(".more").first.text_content()
    page.select_option("#among", "labels")
    for label in ("frog", "lion"):
        page.fill("#add-label", label)
        page.press("#add-label", "Enter")
    page.wait_for_function("() => document.querySelectorAll('.labels li').length === 2")
    assert labels(page) == ["lion", "frog"]
    page.click("[aria-label='Remove lion']")
    page.wait_for_function("() => document.querySelectorAll('.labels li').length === 1")
    assert page.locator(".percent").first.text_content() == "100.0\u00a0%"
    page.select_option("#among", "")
    page.fill("#none-below", "99.99999")
    page.wait_for_selector(".none")
    assert page.inner_text(".none").startswith("None of these")
    page.fill("#none-below", "")
    page.select_option("#index", "translated")
    page.select_option("#lang", "de")
    page.wait_for_selector(".name:text-is('Löwe')")
    assert page.is_hidden("#rank-field"), "a plain list has nothing to roll up to"


def test_what_cannot_be_answered_is_said(page: Any, refusals: set[int]) -> None:
    refusals.add(422)
    choose(page, "lion")
    page.select_option("#among", "under")
    page.fill("#under", "no such node")
    page.wait_for_selector("#trouble:visible")
    assert "no such node" in page.inner_text("#trouble-what")
    assert page.locator(".labels").count() == 0, "nothing is left of what was asked before"
    page.fill("#under", "food")
    answered(page)
    page.wait_for_function("() => document.querySelectorAll('.labels li').length === 3")
    assert page.is_hidden("#trouble")


def test_an_answer_that_comes_too_late_is_not_shown(page: Any) -> None:
    choose(page, "lion")
    held: list[Any] = []
    page.route("**/v1/classify", lambda route: route.continue_() if held else held.append(route))
    with page.expect_request("**/v1/classify"):
        page.fill("#top-k", "2")
    page.fill("#top-k", "4")
    page.wait_for_function("() => document.querySelectorAll('.labels li').length === 4")
    assert held[0].request.failure == "net::ERR_ABORTED"


def test_everything_that_an_answer_may_hold(page: Any) -> None:
    common = {"logit": 1.0, "similarity": 0.25, "index_probability": None, "interval": None}
    predictions = [
        common | {"label": "<b>0</b>", "label_id": 1, "probability": 1, "interval": [0.9, 0.95]},
        common | {"label": "1", "label_id": 2, "probability": 0.25, "interval": [0.25, 0.25001]},
        common | {"label": "2", "label_id": None, "probability": 1e-9, "index_probability": 4e-6},
    ]
    results = [
        {"image": "0", "predictions": predictions},
        {"image": "1", "predictions": [], "none_of_these": "for a <reason>"},
    ]
    document = {"index": "things", "generation": 1, "results": results, "done": 2, "refused": 0}
    page.route("**/v1/classify", lambda route: route.fulfill(json=document))
    page.set_input_files("#files", [SAMPLES["lion"], SAMPLES["pizza"]])
    answered(page)
    assert labels(page) == ["<b>0</b>", "1", "2"]
    lines = page.locator(".card").first.locator(".labels li")
    texts = [lines.nth(at).inner_text().replace("\u00a0", " ").split("\n") for at in range(3)]
    assert "95 % interval 90.0 % to 95.0 %" in texts[0]
    assert not any("interval" in text for text in texts[1]), "it is exact in the digits shown"
    assert {"< 0.0001 %", "0.0004 % over the index"} <= set(texts[2])
    assert page.locator(".none").text_content() == "None of these for a <reason>"


def test_many_images_come_in_several_requests(page: Any) -> None:
    requests: list[str] = []
    page.on("request", lambda request: "classify" in request.url and requests.append(request.url))
    files = [SAMPLES["lion"]] * 20
    page.set_input_files("#files", files)
    answered(page)
    assert len(requests) == 2
    assert page.inner_text("#status") == "20 images classified."
    page.set_input_files("#files", SAMPLES["frog"])
    answered(page)
    assert len(requests) == 3, "images with a result are not sent again"


def refuse_once(page: Any, status: int) -> None:
    problem = json.dumps({"status": status, "detail": "not now"})
    page.route(
        "**/v1/classify",
        lambda route: route.fulfill(
            status=status,
            body=problem,
            headers={"Retry-After": "1"},
            content_type="application/problem+json",
        ),
        times=1,
    )


def test_a_full_service_is_asked_again(page: Any, refusals: set[int]) -> None:
    refusals |= {429, 504}
    refuse_once(page, 429)
    page.set_input_files("#files", SAMPLES["lion"])
    page.wait_for_selector("#status:text-is('The service is full: trying again in 1 s.')")
    answered(page)
    assert labels(page)[0] == "lion"
    # Encoding may take longer than a request: what was encoded by then is kept.
    refuse_once(page, 504)
    page.select_option("#compare", "plain")
    page.wait_for_selector(".card.compared")
    answered(page)
    assert labels(page, 0, 1)[0] == "lion"
    assert page.is_hidden("#trouble")


def test_a_service_that_is_gone_can_be_tried_again(page: Any) -> None:
    page.route("**/v1/classify", lambda route: route.abort(), times=1)
    page.set_input_files("#files", SAMPLES["lion"])
    page.wait_for_selector("#trouble:visible")
    assert "cannot be reached" in page.inner_text("#trouble-what")
    page.click("#again")
    answered(page)
    assert labels(page)[0] == "lion"
    assert page.is_hidden("#trouble")
    page.route("**/v1/classify", lambda route: route.abort(), times=1)
    page.fill("#top-k", "3")
    page.wait_for_selector("#trouble:visible")
    choose(page, "frog")  # another image is another try for all
    assert [len(labels(page, 0)), len(labels(page, 1))] == [3, 3]
    assert page.is_hidden("#trouble")


def test_a_token_is_asked_for_and_kept(browser: Any, served_store: Path) -> None:
    with (
        serving(served_store, device="cpu", tokens=(TOKEN,), max_images=2) as served,
        opened(browser, f"{served.url}/", {}) as tab,
    ):
        page = tab.page
        page.goto(served.url)
        page.wait_for_selector("#token-dialog[open]")
        page.keyboard.type("not the token")
        page.keyboard.press("Enter")
        page.wait_for_selector("#token-title:text-is('This token does not open the service')")
        page.keyboard.press("Escape")
        page.wait_for_selector("#trouble:visible")
        page.click("#again")
        page.wait_for_selector("#token-dialog[open]")
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        ready(page)
        # More images than this service takes at once.
        choose(page, "lion", "frog", "pizza")
        assert [labels(page, at)[0] for at in range(3)] == ["lion", "frog", "pizza"]
        page.click("#show-curl")
        assert TOKEN not in page.input_value("#curl")
        assert "Authorization: Bearer $TOKEN" in page.input_value("#curl")
        page.reload()
        ready(page)
        assert page.is_hidden("#token-dialog")
        page.click("#forget")
        page.reload()
        page.wait_for_selector("#token-dialog[open]")
        tab.check({401, 413})


def test_a_store_without_indexes(browser: Any, tmp_path: Path) -> None:
    Store.open(tmp_path / "empty.db", create=True).close()
    with (
        serving(tmp_path / "empty.db") as served,
        opened(browser, f"{served.url}/", {}) as tab,
    ):
        tab.page.goto(served.url)
        tab.page.wait_for_selector("#trouble:visible")
        assert "There are no indexes yet" in tab.page.inner_text("#trouble-what")
        tab.check(set())


def test_behind_a_proxy(browser: Any, address: str) -> None:
    def forward(route: Any) -> None:
        route.continue_(url=route.request.url.replace("/some/where/", "/"))

    with opened(browser, f"{address}some/where/", {}) as tab:
        page = tab.page
        page.route(f"{address}some/where/**", forward)
        page.goto(f"{address}some/where/")
        ready(page)
        choose(page, "lion")
        assert labels(page)[0] == "lion"
        tab.check(set())


def test_results_and_requests_can_be_taken_along(page: Any, tmp_path: Path) -> None:
    odd = tmp_path / """it's "a" lion; no, $HOME.png"""
    shutil.copy(SAMPLES["lion"], odd)
    page.select_option("#compare", "plain")
    page.set_input_files("#files", odd)
    answered(page)
    with page.expect_download() as download:
        page.click("#download")
    taken = json.loads(download.value.path().read_text(encoding="utf-8"))
    assert taken["index"] == "things"
    assert taken["results"][0]["image"] == odd.name
    predictions = taken["results"][0]["predictions"]
    assert [prediction["label"] for prediction in predictions] == labels(page)
    assert [
        prediction["label"] for prediction in taken["compared"]["results"][0]["predictions"]
    ] == labels(page, 0, 1)
    page.select_option("#compare", "")
    page.fill("#top-k", "3")
    page.wait_for_function("() => document.querySelectorAll('.labels li').length === 3")
    page.click("#show-curl")
    command = page.input_value("#curl")
    page.keyboard.press("Escape")
    if shutil.which("curl") is None:
        return
    answer = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    predictions = json.loads(answer.stdout)["results"][0]["predictions"]
    assert [prediction["label"] for prediction in predictions] == labels(page)


@pytest.mark.parametrize("options", [PHONE, SMALL])
def test_on_a_phone(browser: Any, address: str, options: dict[str, Any]) -> None:
    with opened(browser, address, options) as tab:
        tab.page.goto(address)
        ready(tab.page)
        on_a_phone(tab.page)
        tab.check(set())


def on_a_phone(page: Any) -> None:
    assert not is_wide(page)
    choose(page, "lion", "octopus")
    assert not is_wide(page)
    page.tap("#options > summary")
    page.select_option("#compare", "plain")
    page.wait_for_function("() => document.querySelectorAll('.answer').length === 4")
    answered(page)
    assert not is_wide(page)
    small = page.evaluate(
        """() => [...document.querySelectorAll('button, select, summary, a:not(.skip),'
            + 'input:not([type=checkbox])')]
          .map((one) => [one.id || one.className || one.textContent, one.getBoundingClientRect()])
          .filter(([, box]) => box.width && (box.height < 44 || box.width < 44))
          .map(([name, box]) => `${name}: ${box.width} x ${box.height}`)"""
    )
    assert small == []
    page.locator("[aria-label^='Remove']").first.tap()
    page.wait_for_function("() => document.querySelectorAll('.card').length === 1")
