"""Pages of other origins: refused, unless --allow-origin names them."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner

from tests.support.services import Served, serving
from zsic_index import LabelIndex
from zsic_index.cli import main
from zsic_index.service import routes

EVIL = "https://evil.example"
FRIEND = "https://photos.example:8443"
TOKEN = "a token of some length"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("origins") / "store.db"
    labels, embeddings = ["cat", "dog"], [[1.0, 0.0], [0.0, 1.0]]
    LabelIndex.from_embeddings(labels, embeddings, logit_scale=1.0, name="bare", store=path).close()
    return path


@pytest.fixture(scope="module")
def service(store: Path) -> Iterator[Served]:
    with serving(store) as served:
        yield served


def score(service: Served, **headers: str) -> httpx2.Response:
    """Send an embedding with headers whose names are written with underscores."""
    return httpx2.post(
        f"{service.url}/v1/score",
        json={"embeddings": [[1, 0]]},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def preflight(service: Served, origin: str) -> httpx2.Response:
    headers = {
        "Origin": origin,
        "Sec-Fetch-Site": "cross-site",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    return httpx2.options(f"{service.url}/v1/score", headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": EVIL, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Origin": EVIL, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": "chrome-extension://abc", "Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_page_of_another_origin_is_refused(service: Served, headers: dict[str, str]) -> None:
    response = httpx2.post(
        f"{service.url}/v1/classify", files=[("images", ("d", b"x"))], headers=headers
    )
    assert response.status_code == 403
    assert response.headers["content-type"] == "application/problem+json"
    detail = response.json()["detail"]
    assert headers.get("Origin", "null") in detail
    assert "--allow-origin" in detail
    assert "access-control-allow-origin" not in response.headers
    assert score(service, **headers).status_code == 403


def test_its_own_page_and_other_programs_are_answered(service: Served) -> None:
    local = f"localhost:{service.port}"
    for headers in (
        {},
        {"Origin": service.url},
        {"Origin": service.url, "Sec-Fetch-Site": "same-origin"},
        {"Origin": f"http://{local}", "Host": local},
        {"Sec-Fetch-Site": "none"},
    ):
        response = score(service, **headers)
        assert response.status_code == 200, (headers, response.text)
        assert "access-control-allow-origin" not in response.headers
    opened = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert httpx2.get(f"{service.url}/", headers=opened).status_code == 200
    fetched = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert httpx2.get(f"{service.url}/readyz", headers=fetched).status_code == 403
    assert preflight(service, EVIL).status_code == 403


def test_its_own_page_behind_a_proxy(store: Path) -> None:
    with serving(store, root_path="/tags", hosts=("photos.example", "127.0.0.1")) as service:
        public = "https://photos.example"
        for headers in (
            {"Host": "photos.example", "Origin": public},
            {"Host": "photos.example", "Origin": public, "X-Forwarded-Proto": "https"},
            {"Host": "photos.example:443", "Origin": public},
            # The proxy has not forwarded the name.
            {"Origin": public, "Sec-Fetch-Site": "same-origin"},
        ):
            assert score(service, **headers).status_code == 200, headers
        assert score(service, Host="photos.example", Origin=EVIL).status_code == 403
        assert score(service, Host="evil.example", Origin="http://evil.example").status_code == 421


def test_an_allowed_origin_has_cors(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(store, origins=(FRIEND,), tokens=(TOKEN,)) as service:
        response = preflight(service, FRIEND)
        assert response.status_code == 204
        assert response.headers["access-control-allow-origin"] == FRIEND
        assert "POST" in response.headers["access-control-allow-methods"]
        allowed = response.headers["access-control-allow-headers"]
        assert allowed == "Authorization, Content-Type"
        assert int(response.headers["access-control-max-age"]) > 0
        sent = {"Origin": FRIEND, "Sec-Fetch-Site": "cross-site"}
        authorized = sent | {"Authorization": f"Bearer {TOKEN}"}

        def failing(*_arguments: Any) -> None:
            raise RuntimeError("broken in a test")

        monkeypatch.setattr(routes, "matching", failing)
        labels = f"{service.url}/v1/indexes/bare/labels"
        for response, status in (
            (score(service, **authorized), 200),
            (score(service, **sent), 401),
            (httpx2.get(f"{service.url}/v1/indexes/none", headers=authorized), 404),
            (httpx2.get(f"{service.url}/nothing", headers=authorized), 404),
            (httpx2.get(labels, headers=authorized), 500),
        ):
            assert response.status_code == status
            assert response.headers["access-control-allow-origin"] == FRIEND
            assert "Origin" in response.headers["vary"]
            assert response.headers["x-content-type-options"] == "nosniff"
            assert "access-control-allow-credentials" not in response.headers
        for origin in (EVIL, "https://photos.example", "null"):
            response = score(service, Origin=origin, Authorization=f"Bearer {TOKEN}")
            assert response.status_code == 403
            assert "access-control-allow-origin" not in response.headers
            assert response.headers["vary"] == "Origin"
            assert preflight(service, origin).status_code == 403


def test_all_origins_can_be_allowed(store: Path) -> None:
    with serving(store, origins=("*",)) as service:
        for origin in (EVIL, "null"):
            assert preflight(service, origin).headers["access-control-allow-origin"] == origin
            response = score(service, Origin=origin, Sec_Fetch_Site="cross-site")
            assert response.status_code == 200
            assert response.headers["access-control-allow-origin"] == origin


@pytest.fixture(scope="module")
def other_page() -> Iterator[str]:
    """The origin of an empty page on another port."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


def run_in_page(browser: Any, page_url: str, script: str, service: Served) -> tuple[Any, list[int]]:
    """Run a script in a page; return its result, and the statuses of responses to POST."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(page_url)
    statuses: list[int] = []

    def record(response: Any) -> None:
        if response.request.method == "POST":
            statuses.append(response.status)

    page.on("response", record)
    try:
        result = page.evaluate(script, f"{service.url}/v1/score")
        page.wait_for_load_state("networkidle")
        return result, statuses
    finally:
        context.close()


def refusals(service: Served) -> int:
    """Return the number of requests that were refused with 403."""
    metrics = httpx2.get(f"{service.url}/metrics").text
    count = re.search(r'^zsic_requests_total{path="other",status="403"} (\d+)', metrics, re.M)
    return int(count[1]) if count else 0


CORS_FETCH = """async (url) => {
    const headers = { "Content-Type": "application/json", Authorization: "Bearer %s" };
    const body = '{"embeddings": [[1, 0]]}';
    try {
        const response = await fetch(url, { method: "POST", headers, body });
        return (await response.json()).results[0].predictions[0].label;
    } catch (error) {
        return error.name;
    }
}"""
NO_CORS_FETCH = """async (url) => {
    const body = new FormData();
    body.append("images", new Blob(["x"]), "x.png");
    await fetch(url, { method: "POST", mode: "no-cors", body }).catch(() => {});
}"""
FORM = """async (url) => {
    document.body.innerHTML = '<form method="post" enctype="multipart/form-data"></form>';
    const form = document.forms[0];
    form.action = url;
    form.submit();
}"""


def test_a_browser_s_page_of_another_origin(
    browser: Any, service: Served, store: Path, other_page: str
) -> None:
    # The browser hides the status of what a page may not read.
    before = refusals(service)
    assert run_in_page(browser, other_page, CORS_FETCH % TOKEN, service)[0] == "TypeError"
    assert refusals(service) == before + 1
    run_in_page(browser, other_page, NO_CORS_FETCH, service)
    assert refusals(service) == before + 2
    assert run_in_page(browser, other_page, FORM, service) == (None, [403])
    assert run_in_page(browser, f"{service.url}/", CORS_FETCH % TOKEN, service) == ("cat", [200])
    with serving(store, origins=(other_page,), tokens=(TOKEN,)) as friendly:
        assert run_in_page(browser, other_page, CORS_FETCH % TOKEN, friendly) == ("cat", [200])
        assert run_in_page(browser, other_page, CORS_FETCH % "x", friendly)[1] == [401]


@pytest.mark.parametrize("origin", ["photos.example", "https://photos.example/page", "null", ""])
def test_what_is_not_an_origin_is_a_usage_error(origin: str) -> None:
    finished = CliRunner().invoke(main, ["serve", "--allow-origin", origin])
    assert finished.exit_code == 2
    assert f"{origin!r} is not an origin" in finished.output
