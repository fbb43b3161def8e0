"""Requests in the forms that real clients send: their parts, encodings, methods and probes."""

from __future__ import annotations

import base64
import codecs
import gzip
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import httpx2
import numpy as np
import pytest

from tests.support.libraries import SAMPLES
from tests.support.services import Served, serving

DOG = SAMPLES["dog-face"].read_bytes()
APPLE = SAMPLES["red-apple"].read_bytes()
DOG_TEXT = base64.b64encode(DOG).decode()
HOSTS = ("localhost", "127.0.0.1", "[::1]")


@pytest.fixture(scope="module")
def service(built_store: Callable[[str], Path]) -> Iterator[Served]:
    with serving(built_store("served"), names=("things",), hosts=HOSTS) as served:
        yield served


def post(service: Served, content: bytes, kind: str, **headers: str) -> httpx2.Response:
    return httpx2.post(
        f"{service.url}/v1/classify",
        content=content,
        headers={"Content-Type": kind, **headers},
        timeout=60,
    )


def results(response: httpx2.Response) -> list[tuple[str, str]]:
    """Return the name of each image and its first label."""
    assert response.status_code == 200, response.text
    return [
        (result["image"], result["predictions"][0]["label"])
        for result in response.json()["results"]
    ]


def form(*parts: tuple[str, bytes], newline: str = "\r\n", preamble: str = "") -> bytes:
    body = preamble.encode()
    for head, content in parts:
        lines = head.replace("\n", newline)
        body += f"--b{newline}{lines}{newline * 2}".encode() + content + newline.encode()
    return body + f"--b--{newline}".encode()


NAMED = 'Content-Disposition: form-data; name="images"; filename="dog.png"\nContent-Type: image/png'
FORM = "multipart/form-data; boundary=b"


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ("Content-Disposition: form-data; name=images; filename*=UTF-8''h%C3%BCnd.png", "hünd.png"),
        ("Content-Disposition: form-data; filename*=iso-8859-1'en'h%FCnd; name=\"images\"", "hünd"),
        ('Content-Disposition: form-data; name="images"\nContent-Type: image/png', "1"),
        ('content-type: Image/JPEG\nContent-Disposition: form-data; name="images"', "1"),
    ],
)
def test_parts_that_are_images_without_a_plain_file_name(
    service: Served, head: str, name: str
) -> None:
    response = post(service, form((NAMED, DOG), (head, APPLE)), FORM)
    assert results(response) == [("dog.png", "dog face"), (name, "red apple")]


def test_a_part_without_an_image_type_stays_a_field(service: Served) -> None:
    field = 'Content-Disposition: form-data; name="top_k"\nContent-Type: text/plain'
    response = post(service, form((field, b"2"), (NAMED, DOG)), FORM)
    assert results(response) == [("dog.png", "dog face")]
    assert len(response.json()["results"][0]["predictions"]) == 2


@pytest.mark.parametrize("newline", ["\r\n", "\n"])
@pytest.mark.parametrize("preamble", ["", "This is a form.\r\n", "\r\n", "two lines\n--c\n"])
def test_forms_with_preambles_and_bare_newlines(
    service: Served, newline: str, preamble: str
) -> None:
    body = form((NAMED, DOG), (NAMED, APPLE), newline=newline, preamble=preamble)
    assert [label for _, label in results(post(service, body, FORM))] == ["dog face", "red apple"]


def test_a_form_that_ends_early_is_refused(service: Served) -> None:
    whole = form((NAMED, DOG), (NAMED, APPLE))
    response = post(service, whole[:-100], FORM)
    assert response.status_code == 400
    assert "ends within a part" in response.json()["detail"]


def test_bare_newlines_have_the_limits_of_a_form(service: Served) -> None:
    part = b'--b\nContent-Disposition: form-data; name="labels"\n\nx\n'
    response = post(service, part * 2_000 + b"--b--", FORM)
    assert response.status_code == 413
    assert "more than 1,000 text fields" in response.json()["detail"]


def test_json_with_a_byte_order_mark(service: Served) -> None:
    body = codecs.BOM_UTF8 + json.dumps({"images": [DOG_TEXT]}).encode()
    assert results(post(service, body, "application/json")) == [("0", "dog face")]


def test_gzip_of_several_members(service: Served) -> None:
    body = json.dumps({"images": [DOG_TEXT]}).encode()
    members = [gzip.compress(body[start : start + 1_000]) for start in range(0, len(body), 1_000)]
    packed = b"".join(members)
    response = post(service, packed, "application/json", **{"Content-Encoding": "gzip"})
    assert results(response) == [("0", "dog face")]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_bytes_after_compressed_data_are_refused(service: Served, encoding: str) -> None:
    body = json.dumps({"images": [DOG_TEXT]}).encode()
    packed = gzip.compress(body) if encoding == "gzip" else codecs.encode(body, "zlib")
    headers = {"Content-Encoding": encoding}
    assert results(post(service, packed, "application/json", **headers)) == [("0", "dog face")]
    response = post(service, packed + b"more", "application/json", **headers)
    assert response.status_code == 400
    assert "bytes after the end" in response.json()["detail"]


def test_very_many_members_are_refused(service: Served) -> None:
    packed = gzip.compress(b"") * 20_000
    response = post(service, packed, "application/json", **{"Content-Encoding": "gzip"})
    assert response.status_code == 400
    assert "1,000 gzip members" in response.json()["detail"]


URL_SAFE = base64.urlsafe_b64encode(DOG).decode()


@pytest.mark.parametrize(
    "image",
    [
        pytest.param({"url": f"data:image/png;base64,{DOG_TEXT}"}, id="url"),
        pytest.param({"url": f"DATA:;base64,{quote(DOG_TEXT, safe='')}"}, id="escaped"),
        pytest.param({"data": f"data:image/png,{quote(DOG)}"}, id="percent"),
        pytest.param(URL_SAFE, id="url-safe"),
        pytest.param(URL_SAFE.rstrip("="), id="unpadded"),
        pytest.param("\r\n".join(DOG_TEXT[at : at + 76] for at in range(0, 9_999, 76)), id="mime"),
    ],
)
def test_spellings_of_base64(service: Served, image: str | dict[str, str]) -> None:
    response = post(service, json.dumps({"images": [image]}).encode(), "application/json")
    assert results(response) == [("0", "dog face")]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ({"url": "data:image/png;base64"}, "comma"),
        ({"url": "data:;base64,AAé"}, "ASCII"),
        ({"data": "A"}, "not base64"),
        ({"data": "AA=A"}, "not base64"),
        ({"url": "data:," + "%41" * 70_000}, "percent signs"),
        ({"url": "http://a/" + "a" * 8_000}, "8,000 characters"),
    ],
)
def test_spellings_that_are_refused(service: Served, image: dict[str, str], reason: str) -> None:
    response = post(service, json.dumps({"images": [image]}).encode(), "application/json")
    assert response.status_code == 422
    assert reason in response.text


def test_embeddings_in_url_safe_base64(service: Served) -> None:
    packed = np.linspace(-1, 1, 192, dtype="<f4").tobytes()
    texts = [base64.b64encode(packed).decode(), base64.urlsafe_b64encode(packed).decode()]
    assert texts[0] != texts[1]
    url = f"{service.url}/v1/score"
    first, second = (httpx2.post(url, json={"embeddings": [text]}) for text in texts)
    assert first.status_code == 200, first.text
    assert first.json() == second.json()


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/page/app.js"),
        *("/v1/indexes", "/v1/indexes/things", "/v1/indexes/things/labels?q=dog", "/v1/nothing"),
    ],
)
def test_head_wherever_get_answers(service: Served, path: str) -> None:
    url = service.url + path
    with httpx2.Client() as client:
        get, head, again = client.get(url), client.head(url), client.get(url)
    assert head.status_code == get.status_code == again.status_code
    assert head.content == b""
    changing = {"date", "content-length"} if path == "/metrics" else {"date"}
    assert {name: value for name, value in head.headers.items() if name not in changing} == {
        name: value for name, value in get.headers.items() if name not in changing
    }


def test_head_of_what_only_takes_post(service: Served) -> None:
    response = httpx2.head(f"{service.url}/v1/classify")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("host", ["10.42.0.7", "10.42.0.7:8000", "[fd00::7]:8000", "[fd00::7]"])
def test_probes_by_address(service: Served, host: str) -> None:
    headers = {"Host": host}
    for path in ("/healthz", "/readyz"):
        assert httpx2.get(service.url + path, headers=headers).status_code == 200
    for path in ("/", "/v1/indexes", "/metrics"):
        assert httpx2.get(service.url + path, headers=headers).status_code == 421


@pytest.mark.parametrize("host", ["localhost.", "localhost.:8000", "LOCALHOST."])
def test_the_absolute_name_of_this_machine(service: Served, host: str) -> None:
    headers = {"Host": host}
    assert httpx2.get(f"{service.url}/v1/indexes", headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["10.42.0.7.evil.example", "evil.example.", "localhost..", "."])
def test_probes_by_other_names(service: Served, host: str) -> None:
    response = httpx2.get(f"{service.url}/healthz", headers={"Host": host})
    assert response.status_code == 421


def test_requests(service: Served) -> None:
    requests = pytest.importorskip("requests")
    url = f"{service.url}/v1/classify"
    files = [("images", ("hünd.png", DOG, "image/png")), ("images", ("", APPLE, "image/jpeg"))]
    response = requests.post(url, files=files, data={"top_k": 1}, timeout=60)
    assert [result["image"] for result in response.json()["results"]] == ["hünd.png", "1"]
    document = {"images": [{"url": f"data:image/png;base64,{DOG_TEXT}"}]}
    assert requests.post(url, json=document, timeout=60).status_code == 200
    with requests.Session() as session:
        for _ in range(3):
            assert session.head(f"{service.url}/v1/indexes", timeout=60).status_code == 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(service: Served, tmp_path: Path) -> None:
    picture = tmp_path / "hünd.png"
    picture.write_bytes(DOG)
    (tmp_path / "body.json").write_text(json.dumps({"images": [DOG_TEXT]}), encoding="utf-8-sig")
    url = f"{service.url}/v1/classify"
    commands = [
        ["-F", f"images=@{picture};type=image/png", "-F", "top_k=1"],
        ["-F", f"images=<{picture};type=image/png"],
        ["-H", "Content-Type: application/json", "--data-binary", f"@{tmp_path / 'body.json'}"],
        ["-H", "Expect: 100-continue", "-F", f"images=@{picture}"],
    ]
    for command in commands:
        output = subprocess.run(
            ["curl", "-sS", *command, url], check=True, capture_output=True, timeout=60
        ).stdout
        assert json.loads(output)["results"][0]["predictions"][0]["label"] == "dog face", command
    head = subprocess.run(
        ["curl", "-sSI", f"{service.url}/healthz"], check=True, capture_output=True, timeout=60
    ).stdout
    assert head.startswith(b"HTTP/1.1 200")


NODE = """
const [url, data] = process.argv.slice(2);
const image = new Blob([Buffer.from(data, "base64")], { type: "image/png" });
const form = new FormData();
form.append("images", image, "hünd.png");
const requests = [
  { body: form },
  { headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ images: [{ url: `data:image/png;base64,${data}` }] }) },
];
for (const request of requests) {
  const response = await fetch(url, { method: "POST", ...request });
  const { results } = await response.json();
  console.log(results[0].image, results[0].predictions[0].label);
}
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_node(service: Served) -> None:
    output = subprocess.run(
        ["node", "--input-type=module", "-", f"{service.url}/v1/classify", DOG_TEXT],
        input=NODE,
        check=True,
        capture_output=True,
        timeout=60,
        text=True,
    ).stdout
    assert output.splitlines() == ["hünd.png dog face", "0 dog face"]
