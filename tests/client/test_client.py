"""The client's answers are the index's own; what goes wrong has its name, and is in its place."""

from __future__ import annotations

import dataclasses
import http.server
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_type_hints

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from tests.support.libraries import SAMPLES
from tests.support.services import TAXONOMY, Served, serving
from zsic_index import (
    Client,
    Decision,
    ImageError,
    IndexNotFoundError,
    InputError,
    LabelError,
    LabelIndex,
    LabelRecord,
    NodePrediction,
    Prediction,
    ServedIndexInfo,
    ServiceError,
)
from zsic_index.cli import main
from zsic_index.client import client as client_module
from zsic_index.client import connection, requests, uploads
from zsic_index.errors import EmbeddingError, ImageFormatError, ImageTooLargeError
from zsic_index.images.opening import ImageSource
from zsic_index.querying.compiled import compile_query
from zsic_index.querying.query import OPTIONS, Query
from zsic_index.querying.thresholds import Thresholds
from zsic_index.records import json_names
from zsic_index.service import schemas

DOG, APPLE, FROG = (SAMPLES[name] for name in ("dog-face", "red-apple", "frog"))

HEAVY = ("torch", "transformers", "faiss", "sqlalchemy", "alembic", "numpy", "fastapi", "pydantic",
         "uvicorn")  # fmt: skip

TOKEN = "a token of more than sixteen characters".replace(" ", "-")

PROBLEM = {"Content-Type": "application/problem+json"}
GOOD = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def built(built_store: Callable[[str], Path]) -> Path:
    return built_store("served")


@pytest.fixture(scope="module")
def service(built: Path) -> Iterator[Served]:
    with serving(built, max_template_sets=1) as found:
        yield found


@pytest.fixture(scope="module")
def client(service: Served) -> Iterator[Client]:
    with Client(service.url, index="things") as found:
        yield found


@pytest.fixture(scope="module")
def index(built: Path) -> Iterator[LabelIndex]:
    with LabelIndex.open("things", store=built) as found:
        yield found


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_BACKOFF", 0.01)
    monkeypatch.delenv("ZSIC_TOKEN", raising=False)


@contextmanager
def stand_in(*answers: tuple[int, dict[str, str], object]) -> Iterator[tuple[str, list[str]]]:
    """Run a server that gives some answers, the last one again and again; say what was asked."""
    left, asked = list(answers), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append(self.path)
            status, headers, body = left.pop(0) if len(left) > 1 else left[0]
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer  # noqa: N815

        def log_message(self, *_arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def same(found: Any, expected: Any) -> None:
    """Two answers are of one type, and equal but for the last digits of numbers."""
    assert type(found) is type(expected)
    if isinstance(found, float):
        assert found == pytest.approx(expected, abs=1e-6, rel=1e-5)
    elif isinstance(found, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    elif dataclasses.is_dataclass(found):
        for field in dataclasses.fields(found):
            same(getattr(found, field.name), getattr(expected, field.name))
    elif isinstance(found, dict):
        assert found.keys() == expected.keys()
        for name in found:
            same(found[name], expected[name])
    else:
        assert found == expected


# Answers


def sources() -> list[ImageSource]:
    """A path, a path as text, bytes, and PIL images, one of a mode that PNG does not have."""
    with Image.open(APPLE) as apple, Image.open(FROG) as frog:
        return [DOG, str(APPLE), FROG.read_bytes(), apple.convert("CMYK"), frog.convert("RGBA")]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"top_k": 3, "over_index": True},
        {"labels": np.array(["frog", "red apple"]), "over_index": True},
        {"under": "animals", "top_k": 2},
        {"rank": "kind"},
        {"rank": "depth 1", "top_k": np.int64(2), "lang": "de"},
        {"deepest": 0.5, "floors": {"kind": 0.75}},
        {"threshold": 0.4},
        {"none_below": 0.999, "none_within": 0.01},
        {"lang": "de"},
    ],
    ids=str,
)
def test_answers_are_the_index_s(client: Client, index: LabelIndex, asked: Any) -> None:
    answer = compile_query(Query(**asked), index)
    expected = list(index.encoder.stream(sources(), answer))
    found = list(client.stream(sources(), **asked))
    same(found, expected)
    same(list(client.stream_query(sources()[:1], Query(**asked))), expected[:1])
    scored = client.score(index.embed(sources()), **asked)
    same(scored, [list(one.predictions) for one in expected if isinstance(one, Decision)])


def test_one_image_has_a_list_and_several_have_lists(client: Client, index: LabelIndex) -> None:
    found = client.classify(DOG, top_k=2)
    same(found, index.classify(DOG, top_k=2))
    assert [type(one) for one in found] == [Prediction] * 2
    same(client.classify([DOG.read_bytes(), FROG]), index.classify([DOG, FROG]))
    assert client.classify([]) == []
    (node,) = client.classify(str(DOG), deepest=0.5)
    assert isinstance(node, NodePrediction)
    assert node.path == ("animals", "dog face")


def test_embeddings(client: Client, index: LabelIndex) -> None:
    found = client.embed([DOG, FROG])
    assert (found.shape, found.dtype) == ((2, index.info.dim), np.float32)
    assert found == pytest.approx(index.embed([DOG, FROG]), abs=1e-6)
    assert client.embed([]).shape == (0, index.info.dim)
    texts = client.embed_prompts(["This is a photo of frog.", "x"])
    assert (texts.shape, texts.dtype) == ((2, index.info.dim), np.float32)
    assert np.linalg.norm(texts, axis=1) == pytest.approx([1, 1], abs=1e-6)
    assert client.score(found)[1][0].label == "frog"
    assert client.score(np.empty((0, index.info.dim), np.float32)) == []


def test_indexes_and_labels(
    client: Client, index: LabelIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare, things = client.indexes()
    assert (bare.name, bare.model_id, bare.calibrated) == ("bare", None, False)
    for name in ("name", "model_id", "templates", "kind", "labels", "dim", "generation"):
        assert getattr(things, name) == getattr(index.info, name)
    assert (things.ranks, things.languages) == (("kind",), ("de",))
    monkeypatch.setattr(client_module, "_PAGE", 3)
    labels = list(client.labels())
    assert [one.label for one in labels] == [
        line.split(",")[1] for line in TAXONOMY.splitlines()[1:]
    ]
    frog = labels[3]
    assert (frog.id, frog.parent, frog.aliases, frog.lang) == (
        "frog", ("animals",), ("toad",), {"de": "Frosch"},
    )  # fmt: skip
    assert [one.label for one in client.labels(q="TOAD")] == ["frog"]
    assert len(list(client.labels("bare"))) == 8


def test_where_one_index_is_served_it_needs_no_name(built: Path) -> None:
    with serving(built, names=("things",)) as service, Client(service.url) as client:
        assert client.classify(DOG)[0].label == "dog face"
        assert len(list(client.labels())) == 8
        assert client.embed([]).shape[0] == 0


def test_other_templates(client: Client, index: LabelIndex) -> None:
    expected = index.with_templates(["a drawing of {}"]).classify(DOG)
    same(client.classify(DOG, templates=["a drawing of {}"]), expected)


# Many images


def test_more_images_than_a_request_may_have(built: Path, index: LabelIndex) -> None:
    images = [DOG, APPLE, FROG] * 2
    expected = index.classify(images)
    with serving(built, max_images=3) as service, Client(service.url, index="things") as client:
        same(client.classify(images), expected)
        assert client._max_images <= 3
        same(client.classify(images), expected)


def test_a_request_that_a_proxy_takes_for_too_large_is_halved() -> None:
    html = (413, {"Content-Type": "text/html"}, b"<h1>413</h1>")
    one = (200, GOOD, {"results": [{"image": "0", "predictions": []}]})
    with stand_in(html, one, one, html) as (url, asked), Client(url) as client:
        assert client.classify([DOG, FROG]) == [[], []]
        assert len(asked) == 3
        with pytest.raises(ImageTooLargeError, match=r"dog-face\.png: .* rejects so large"):
            client.classify(DOG)


def test_batches_are_bounded_by_number_and_bytes(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(DOG.read_bytes())
    monkeypatch.setattr(uploads, "MAX_BYTES", 3 * size)
    assert [len(one) for one in uploads.batches([DOG] * 8, lambda: 32)] == [3, 3, 2]
    assert [len(one) for one in uploads.batches([bytes(size * 9)] * 2, lambda: 32)] == [1, 1]
    assert [len(one) for one in uploads.batches(["nowhere"] * 5, lambda: 2)] == [2, 2, 1]
    taken: list[int] = []

    def endless() -> Iterator[Path]:
        for number in range(1_000_000):
            taken.append(number)
            yield DOG

    stream = client.stream(endless())
    assert isinstance(next(stream), Decision)
    assert len(taken) <= 7  # two batches, and the first of the next one
    stream.close()  # type: ignore[attr-defined]


def test_many_labels_are_not_sent_as_a_form(client: Client) -> None:
    labels = [f"thing {number}" for number in range(2_000)]
    with pytest.raises(InputError, match="label 'thing 0' is not in index 'things'"):
        client.classify(DOG, labels=labels)
    same(client.classify(DOG, labels=["frog"] * 2_000), client.classify(DOG, labels=["frog"]))
    with pytest.raises(InputError, match=r"10,001 labels; .* 10,000"):
        client.classify([DOG, FROG], labels=["frog"] * 10_001)


# Refused images


def test_refused_images_are_in_their_places(
    client: Client, index: LabelIndex, tmp_path: Path
) -> None:
    broken = tmp_path / "broken picture.png"
    broken.write_bytes(DOG.read_bytes()[:500])
    text = tmp_path / "notes.png"
    text.write_text("not a picture")
    images = [DOG, broken, tmp_path / "nowhere.png", tmp_path, "https://example.org/a.png", text,
              b"bytes", 7, Image.new("RGB", (1, 900)), FROG]  # fmt: skip
    expected = list(index.stream(images))
    found = list(client.stream(images))
    assert [type(one) for one in found if isinstance(one, ImageError)] == [
        type(one) for one in expected if isinstance(one, ImageError)
    ]
    for one, other in zip(found, expected, strict=True):
        if isinstance(other, ImageFormatError):  # the service takes other formats
            assert str(one).startswith(str(other).partition("(")[0])
        elif isinstance(other, ImageError):
            assert str(one) == str(other)
        else:
            assert isinstance(one, Decision)
            same(list(one.predictions), other)
    with pytest.raises(ImageError, match=r"broken picture\.png: "):
        client.classify([DOG, broken])
    with pytest.raises(ImageError, match=r"broken picture\.png: "):
        client.embed(broken)


def test_what_the_service_finds_too_large_is_said_of_the_image(built: Path) -> None:
    options = {"max_pixels": 10_000, "max_body": 200_000}
    with serving(built, **options) as service, Client(service.url, index="things") as client:
        dog, noise, large = client.stream([DOG, bytes(100), bytes(300_000)])
        assert isinstance(dog, ImageTooLargeError)
        assert str(dog).startswith(f"{DOG}: has ")
        assert isinstance(noise, ImageFormatError)
        assert isinstance(large, ImageTooLargeError)
        assert str(large).startswith("<300000 bytes>: the body has more than 200,000 bytes")


def test_names_of_files_stay_here(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(DOG.read_bytes())
    answer = {"results": [{"image": "0", "predictions": []}]}
    with stand_in((200, GOOD, answer)) as (url, _), Client(url) as client:
        sent: list[bytes] = []
        client._connection._http.event_hooks = {"request": [lambda one: sent.append(one.read())]}
        client.classify(secret)
        client.classify(secret, labels=["x"] * 501)
    assert len(sent) == 2
    assert not any(b"secret" in one for one in sent)


# What cannot be asked


def test_options_have_the_names_and_types_of_a_query() -> None:
    options = get_type_hints(requests.QueryOptions)
    del options["templates"]
    expected = {name: option.type for name, option in OPTIONS.items() if not option.local}
    expected["thresholds"] = Literal["calibrated"]  # a service has no others
    assert options.keys() == expected.keys()
    for name, expected_type in expected.items():
        assert options[name] | None == expected_type | None, name


@pytest.mark.parametrize(
    ("record", "schema"),
    [
        (Prediction, schemas.LabelPrediction),
        (NodePrediction, schemas.RolledUp),
        (ServedIndexInfo, schemas.ServedIndexInfo),
        (LabelRecord, schemas.LabelRecord),
    ],
)
def test_records_are_what_the_service_says(record: Any, schema: Any) -> None:
    assert set(json_names(record).values()) == set(schema.model_fields)


@pytest.mark.parametrize(
    ("asked", "kind", "words"),
    [
        ({"labels": []}, LabelError, "labels is empty"),
        ({"labels": "frog"}, LabelError, "labels='frog'"),
        ({"labels": ["\ud800"]}, InputError, "cannot be sent"),
        ({"encode_missing": True}, InputError, "encode_missing cannot be asked"),
        ({"negatives": ["x"]}, InputError, "negatives cannot be asked"),
        ({"thresholds": Thresholds(0.5)}, InputError, "'calibrated'"),
        ({"rank": "kind", "under": "food"}, InputError, "exclude each other"),
        ({"rank": "species"}, InputError, "species"),
        ({"top_k": 0}, InputError, "top_k"),
        ({"sets": True}, InputError, "no calibration"),
        ({"colour": "red"}, TypeError, "colour"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_is_named(
    client: Client, asked: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        client.classify(DOG, **asked)


def test_embeddings_of_another_form_are_named(client: Client) -> None:
    with pytest.raises(EmbeddingError, match="norm 0"):
        client.score(np.zeros((1, 192), np.float32))
    with pytest.raises(InputError, match="7 dimensions"):
        client.score(np.ones(7, np.float32))
    with pytest.raises(InputError, match="not one string"):
        client.embed_prompts("frog")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("127.0.0.1:8000", "give an address such as"),
        ("localhost:8000", "give an address such as"),
        ("ftp://127.0.0.1", "give an address such as"),
        ("http://", "give an address such as"),
        ("http://127.0.0.1:port", "not an address"),
        ("http://127.0.0.1/?q=1", "leave out"),
        ("http://me:hush@127.0.0.1", "has a user in it"),
    ],
)
def test_what_is_no_address(url: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        Client(url)
    assert "hush" not in str(raised.value)


def test_what_is_no_token_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZSIC_TOKEN", "hush\nhush")
    with pytest.raises(InputError, match="the token has spaces") as raised:
        Client("http://127.0.0.1")
    assert "hush" not in str(raised.value)


# Services that do not answer


def test_an_index_that_is_not_served(service: Served) -> None:
    with Client(service.url, index="nowhere") as client:
        for ask in (lambda: client.classify(DOG), lambda: list(client.labels())):
            with pytest.raises(IndexNotFoundError, match="nowhere"):
                ask()
        with pytest.raises(InputError, match="bare, things"):
            client.embed([])
    with Client(service.url) as client, pytest.raises(InputError, match="bare, things"):
        client.classify(DOG)
    with (
        Client(service.url, index="bare") as client,
        pytest.raises(InputError, match="imported without a model"),
    ):
        client.classify(DOG)


def test_tokens(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(built, names=("things",), tokens=(TOKEN,)) as service:
        with Client(service.url) as client:
            assert client.is_ready()
            with pytest.raises(ServiceError, match=r"needs a token .*ZSIC_TOKEN"):
                client.classify(DOG)
        with (
            Client(service.url, token="hush-hush") as client,
            pytest.raises(ServiceError, match=r"refuses the token .*ZSIC_TOKEN") as raised,
        ):
            client.indexes()
        assert "hush" not in str(raised.value)
        with Client(service.url, token=TOKEN) as client:
            assert client.classify(DOG)
        monkeypatch.setenv("ZSIC_TOKEN", f"{TOKEN}\n")
        with Client(service.url) as client:
            assert client.classify(DOG)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long requests have waited for their next attempt, if they had."""
    found: list[float] = []
    monkeypatch.setattr(connection.time, "sleep", found.append)
    return found


def test_no_service_there(waits: list[float]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url) as client:
        assert not client.is_ready()
        assert waits == []
        with pytest.raises(ServiceError, match=f"{url} cannot be reached: .*zsic-index serve"):
            client.classify(DOG)
    assert len(waits) == 3
    assert waits == sorted(waits)


def test_a_service_is_left_alone_for_as_long_as_it_asks(waits: list[float]) -> None:
    soon = (429, PROBLEM | {"Retry-After": "2"}, {"status": 429, "detail": "full"})
    good = (200, GOOD, {"indexes": []})
    with stand_in(soon, good) as (url, _), Client(url) as client:
        assert client.indexes() == []
    assert 2 < waits[0] < 2.1


def test_a_service_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            Client(url, timeout=0.2) as client,
            pytest.raises(ServiceError, match=f"{url} has not answered in time"),
        ):
            client.classify(DOG)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, {"Content-Type": "text/html"}, b"<h1>Hello</h1>"), "200 with text/html"),
        ((404, {"Content-Type": "text/html"}, b"<h1>Not here</h1>"), "404 with text/html"),
        ((404, PROBLEM, {"status": 404, "detail": "Not Found"}), "zsic-index serve"),
        ((301, {"Location": "https://example.org/"}, b""), "it points to https://example.org/"),
        ((200, GOOD, b"{"), "the same version"),
        ((200, GOOD, []), "200 with application/json"),
        ((200, GOOD, {"results": []}), "has not answered for each"),
        ((200, GOOD, {"results": [{"image": "0"}]}), "the same version"),
        ((200, GOOD, {"results": [{"predictions": [{"label": 1}]}]}), "the same version"),
        ((500, PROBLEM, {"status": 500, "detail": "unexpected"}), r"unexpected \(500\)"),
        ((504, PROBLEM, {"status": 504, "detail": "not done"}), "--deadline"),
        ((429, PROBLEM | {"Retry-After": "3600"}, {"detail": "full"}), r"full \(429\)"),
        (
            (200, GOOD, {"results": [{"error": {"status": 500, "detail": "unexpected"}}]}),
            r"dog-face\.png: unexpected",
        ),
    ],
    ids=str,
)
def test_what_is_no_service_is_asked_once(answer: Any, words: str) -> None:
    with stand_in(answer) as (url, asked), Client(url) as client:
        with pytest.raises(ServiceError, match=words) as raised:
            client.classify(DOG)
        assert url in str(raised.value)
        assert asked == ["/v1/classify"]


def test_a_page_is_not_ready_and_never_will_be() -> None:
    with (
        stand_in((200, {"Content-Type": "text/html"}, b"")) as (url, _),
        Client(url) as client,
        pytest.raises(ServiceError, match="not zsic-index"),
    ):
        client.is_ready()
    with stand_in((503, PROBLEM, {"detail": "soon"})) as (url, asked), Client(url) as client:
        assert not client.is_ready()
        assert asked == ["/readyz"]


def test_a_full_service_is_asked_again() -> None:
    full = (429, PROBLEM | {"Retry-After": "0"}, {"status": 429, "detail": "full"})
    gone = (503, {"Content-Type": "text/html", "Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, b"")
    good = (200, GOOD, {"results": [{"image": "0", "predictions": [], "none_of_these": "why"}]})
    with stand_in(full, gone, good) as (url, asked), Client(f"{url}/below") as client:
        assert list(client.stream([DOG])) == [Decision([], "why")]
        assert asked == ["/below/v1/classify"] * 3
    with stand_in(full) as (url, asked), Client(url, retries=2) as client:
        with pytest.raises(ServiceError, match=r"full \(429\): try again later"):
            client.classify(DOG)
        assert len(asked) == 3


def test_labels_of_an_index_that_is_built_again_meanwhile() -> None:
    label = {"label_id": 1, "id": "a", "label": "a", "parent": [], "rank": None, "aliases": [],
             "lang": {}, "path": ["a"]}  # fmt: skip
    pages = [(200, GOOD, {"labels": [label], "total": 2, "generation": at}) for at in (1, 2)]
    with stand_in(*pages) as (url, _), Client(url, index="things") as client:
        found = client.labels()
        assert next(found).path == ("a",)
        with pytest.raises(ServiceError, match="built again meanwhile"):
            next(found)


# On the command line


def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["query", *map(str, arguments)], input=stdin)


@pytest.mark.parametrize(
    "options",
    [
        ("-f", "json", "--top-k", "3"),
        ("-f", "jsonl", "--under", "animals", "--lang", "de"),
        ("-f", "json", "--deepest", "0.5", "--floor", "kind=0.75"),
        ("-f", "json", "--none-below", "0.999"),
        ("-f", "table", "--rank", "kind"),
    ],
    ids=str,
)
def test_query_prints_what_it_prints_here(
    service: Served, built: Path, tmp_path: Path, options: Sequence[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "dog.png").write_bytes(DOG.read_bytes())
    (folder / "broken.png").write_bytes(DOG.read_bytes()[:500])
    images = (folder, tmp_path / "nowhere.png", FROG, "-", tmp_path / "*.gif")
    asked = (*images, "-n", "things", *options)
    here = run(*asked, "--store", built, stdin=APPLE.read_bytes())
    there = run(*asked, "--server", service.url, stdin=APPLE.read_bytes())
    assert (here.exit_code, there.exit_code) == (3, 3)
    assert there.stderr == here.stderr
    if options[1] == "table":
        assert there.stdout == here.stdout
        return
    documents = [
        [json.loads(line) for line in one.stdout.splitlines()]
        if options[1] == "jsonl"
        else json.loads(one.stdout)
        for one in (there, here)
    ]
    same(*documents)
    assert [len(one.stdout.splitlines()) for one in (here, there)].count(0) == 0


def test_query_with_labels_of_a_file_and_a_token(built: Path, tmp_path: Path) -> None:
    labels = tmp_path / "some.txt"
    labels.write_text("frog\nlion\n")
    tokens = tmp_path / "tokens.txt"
    tokens.write_text(f"# of this service\n{TOKEN}\nanother-one-for-later\n")
    with serving(built, names=("things",), tokens=(TOKEN,)) as service:
        asked = (FROG, "--labels", labels, "-f", "csv", "--server", service.url)
        found = run(*asked, "--token-file", tokens)
        assert found.exit_code == 0, found.output
        assert found.stdout.splitlines()[1].startswith(f"{FROG},1,frog,")
        refused = run(*asked)
    assert refused.exit_code == 1
    assert "needs a token" in refused.stderr
    tokens.write_text("# none\n")
    empty = run(*asked, "--token-file", tokens)
    assert empty.exit_code == 2
    assert "no token in it" in empty.stderr


def test_query_asks_one_of_both(
    service: Served, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZSIC_STORE", str(built))
    remote = (FROG, "-n", "things", "--server", service.url, "-f", "csv")
    assert run(*remote).exit_code == 0
    thresholds = tmp_path / "thresholds.csv"
    thresholds.write_text("label,threshold\n*,0.5\n")
    for options in (
        ("--store", built),
        ("--device", "cpu"),
        ("--decode", "exact"),
        ("--keep-images",),
        ("--encode-missing",),
        ("--negative", "ball"),
        ("--thresholds", thresholds),
    ):
        found = run(*remote, *options)
        assert found.exit_code == 2
        assert str(options[0]) in found.stderr
        assert "--server" in found.stderr
    unnamed = run(FROG)
    assert unnamed.exit_code == 2
    assert "Missing option '-n' / '--name'" in unnamed.stderr
    alone = run(FROG, "-n", "things", "--token-file", thresholds)
    assert alone.exit_code == 2
    assert "--token-file goes with --server" in alone.stderr


def test_errors_of_query_are_one_line(service: Served) -> None:
    for server, name, words in (
        (service.url, "nowhere", "nowhere"),
        (f"http://127.0.0.1:{free_port()}", "things", "cannot be reached"),
        ("127.0.0.1", "things", "give an address such as"),
    ):
        found = run(FROG, "-n", name, "--server", server)
        assert found.exit_code == 1
        (line,) = found.stderr.splitlines()
        assert words in line


def test_asking_loads_nothing_heavy(service: Served) -> None:
    code = (
        "import sys\n"
        "from zsic_index import Client\n"
        f"with Client({service.url!r}, index='things') as client:\n"
        f"    client.classify({str(DOG)!r}, rank='kind'), client.indexes()\n"
        "from zsic_index.cli import main\n"
        f"try: main(['query', {str(DOG)!r}, '-n', 'things', '--server', {service.url!r}])\n"
        "except SystemExit as ended: print(ended.code)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.splitlines()[-2:] == ["0", "[]"]
