"""Reviewing a library: what is shown, what verdicts lead to, and who is let in."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.support.libraries import leaves, put, state, tag
from tests.support.stores import copy_store
from zsic_index import LabelIndex
from zsic_index.cli import main
from zsic_index.encoders.source import EncoderSource
from zsic_index.errors import ImageError, InputError
from zsic_index.library.review import ranking, thumbnails
from zsic_index.library.review.fitting import fit
from zsic_index.library.review.guard import Guard
from zsic_index.library.review.server import MAX_BODY_BYTES, ReviewServer
from zsic_index.library.review.session import BusyError, NotReviewedError, Review
from zsic_index.library.review.thumbnails import SMALL, Thumbnails
from zsic_index.library.run_lock import run_lock
from zsic_index.library.run_settings import RunSettings
from zsic_index.library.tag_rules import TagSettings
from zsic_index.store import Store
from zsic_index.web import RefusedError

NAMES = ("dog-face", "lion", "frog", "pizza", "red-apple", "2024/octopus", "2024/automobile")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, built_store: Callable[[str], Path]) -> Path:
    """A folder with a library of seven photos, tagged, and the store that knows it."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSIC_STORE", str(folder / "store.db"))
        copy_store(built_store("library"), folder / "store.db")
        put(folder / "photos", *NAMES)
        tag(folder / "photos")
    return folder


@pytest.fixture
def root(made: Path, store: Path) -> Path:
    """That library, with the test's own copy of its store; nothing may be written to it."""
    copy_store(made / "store.db", store)
    return made / "photos"


@pytest.fixture
def own_root(made: Path, root: Path, tmp_path: Path) -> Path:
    """A copy of it that may be written to."""
    shutil.copytree(root, tmp_path / "photos")
    tag(tmp_path / "photos")
    with Store.open() as opened:
        photos = opened.photos
        gone = [photo.photo_id for photo in photos.iterate(under=str(root))]
        photos.set_missing(gone, missing_since=1.0)
    return tmp_path / "photos"


@pytest.fixture
def open_review(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Review]]:
    """Opens reviews that must not load the model."""
    opened: list[Review] = []

    def refuse(self: EncoderSource) -> Any:
        raise AssertionError("the model is loaded")

    def make(under: Path | None = None, name: str = "things") -> Review:
        monkeypatch.setattr(EncoderSource, "encoder", refuse)
        index = LabelIndex.open(name, decode="scaled", keep_images=True)
        opened.append(Review(index, None if under is None else str(under)))
        return opened[-1]

    yield make
    for review in opened:
        review.close()
        review.index.close()


def label_id(review: Review, name: str) -> int:
    total, summaries = review.search_labels(name, 0, 500)
    (label,) = [summary.label for summary in summaries if summary.label.name == name]
    assert total >= 1
    return label.label_id


def photo_id(review: Review, name: str) -> int:
    """The id of a photo by its file's name."""
    label = label_id(review, "umbrella")
    page = review.page(label, "all", 0.5, -1, 500)
    (id_,) = [photo.photo.photo_id for photo in page.photos if photo.photo.name == name]
    return id_


def shown(review: Review, label: int, which: Any, threshold: float = 0.5) -> list[str]:
    return [photo.photo.name for photo in review.page(label, which, threshold, -1, 500).photos]


# What is shown


@pytest.mark.parametrize("model", ["builtin:clip", "builtin:siglip"])
@pytest.mark.parametrize("names", ["mean", "max", "mass"])
def test_probabilities_are_those_of_tag(
    model: str,
    names: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    open_review: Callable[..., Review],
) -> None:
    if (model, names) == ("builtin:siglip", "mass"):
        pytest.skip("a mass of names is for softmax models")
    monkeypatch.setattr(ranking, "_CACHED_LABELS", 2)
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "label,aliases\ndog face,puppy|dog\nlion,\npizza,slice of pizza\nfrog,toad\n",
        encoding="utf-8",
    )
    LabelIndex.build(labels, model=model, name="things", name_pooling=names).close()
    put(tmp_path / "photos", "dog-face", "lion", "pizza", "frog", "umbrella")
    tag(tmp_path / "photos")
    review = open_review()
    assert len(review.photos) == 5
    index = review.index
    paths = [review.photo(id_).path for id_ in review.photos.photo_ids.tolist()]
    with LabelIndex.open("things", decode="scaled", keep_images=True) as other:
        label_ids, expected = other.searcher.best_labels(other.embed(paths), len(other))
    by_photo = [
        dict(zip(ids, values, strict=True))
        for ids, values in zip(label_ids.tolist(), expected.tolist(), strict=True)
    ]
    for row, id_ in enumerate(index.label_ids.tolist()):
        label = review.label(id_)
        assert (label.row, label.name) == (row, index.labels[row])
        for photo in review.page(id_, "all", 0.5, -1, 500).photos:
            place = paths.index(photo.photo.path)
            assert photo.probability == pytest.approx(by_photo[place][id_], rel=1e-6)


def test_photos_by_probability_in_pages(root: Path, open_review: Callable[..., Review]) -> None:
    review = open_review()
    dog = label_id(review, "dog face")
    whole = review.page(dog, "all", 0.5, -1, 500)
    assert whole.total == len(whole.photos) == len(NAMES)
    assert whole.photos[0].photo.name == "dog-face.jpg"
    probabilities = [photo.probability for photo in whole.photos]
    assert probabilities == sorted(probabilities, reverse=True)
    assert review.probabilities(dog).tolist() == probabilities
    pages, after = [], -1
    while page := review.page(dog, "all", 0.5, after, 3).photos:
        pages.append(page)
        after = page[-1].rank
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [photo for page in pages for photo in page] == whole.photos


def test_labels_by_tags_and_by_words(root: Path, open_review: Callable[..., Review]) -> None:
    review = open_review()
    total, summaries = review.search_labels("", 0, 3)
    assert (total, len(summaries)) == (12, 3)
    everything = review.search_labels("", 0, 500)[1]
    tagged = [summary.counts.tagged for summary in everything]
    assert tagged == sorted(tagged, reverse=True)
    given = Counter(leaf for name in NAMES for leaf in leaves(root / f"{name}.jpg"))
    assert given
    assert {summary.label.name: summary.counts.tagged for summary in everything} == {
        name: given[name] for name in review.index.labels
    }
    assert [summary.label.name for summary in review.search_labels("MAMMALS dog", 0, 9)[1]] == [
        "dog face"
    ]
    summaries = review.search_labels("mammals", 0, 9)[1]
    assert [(summary.label.name, summary.label.path) for summary in summaries] == [
        ("dog face", ("animals", "mammals")),
        ("lion", ("animals", "mammals")),
        ("mammals", ("animals",)),
    ]
    assert review.search_labels("no such label", 0, 9) == (0, [])


def test_filters(root: Path, open_review: Callable[..., Review]) -> None:
    review = open_review()
    lion = label_id(review, "lion")
    review.give_verdict(lion, photo_id(review, "lion.jpg"), "accepted")
    review.give_verdict(lion, photo_id(review, "pizza.jpg"), "rejected")
    review.give_verdict(lion, photo_id(review, "frog.jpg"), "unsure")
    assert shown(review, lion, "accepted") == ["lion.jpg"]
    assert shown(review, lion, "rejected") == ["pizza.jpg"]
    assert shown(review, lion, "unsure") == ["frog.jpg"]
    rest = shown(review, lion, "undecided")
    assert len(rest) == 4
    assert not {"lion.jpg", "pizza.jpg", "frog.jpg"} & set(rest)
    assert review.verdict_counts(lion) == {"accepted": 1, "rejected": 1, "unsure": 1}
    counts = review.search_labels("lion", 0, 1)[1][0].counts
    assert (counts.accepted, counts.rejected, counts.unsure) == (1, 1, 1)


def test_near_is_half_to_twice_the_odds(root: Path, open_review: Callable[..., Review]) -> None:
    review = open_review()
    lion = label_id(review, "lion")
    page = review.page(lion, "all", 0.5, -1, 500).photos
    third = page[2].probability
    odds = third / (1 - third)
    for factor, near in ((1.0, True), (1.9, True), (1 / 1.9, True), (2.1, False), (1 / 2.1, False)):
        threshold = odds * factor / (1 + odds * factor)
        assert (page[2].photo.name in shown(review, lion, "near", threshold)) == near, factor


def test_only_below_a_folder(root: Path, open_review: Callable[..., Review]) -> None:
    review = open_review(root / "2024")
    frog = label_id(review, "frog")
    assert sorted(shown(review, frog, "all")) == ["automobile.jpg", "octopus.jpg"]
    given = [leaf for name in NAMES[-2:] for leaf in leaves(root / f"{name}.jpg")]
    tagged = [
        summary.label.name
        for summary in review.search_labels("", 0, 500)[1]
        if summary.counts.tagged
    ]
    assert sorted(tagged) == sorted(given)
    whole = open_review()
    with pytest.raises(NotReviewedError, match="not among those reviewed"):
        review.photo(photo_id(whole, "frog.jpg"))


def test_nothing_to_review(root: Path, tmp_path: Path) -> None:
    with (
        LabelIndex.open("things", decode="exact", keep_images=True) as index,
        pytest.raises(InputError, match="run 'zsic-index tag' first"),
    ):
        Review(index)


def test_copies_are_one_picture(own_root: Path, open_review: Callable[..., Review]) -> None:
    shutil.copy(own_root / "frog.jpg", own_root / "2024" / "again.jpg")
    tag(own_root)
    review = open_review()
    frog = label_id(review, "frog")
    (first, *others) = review.page(frog, "all", 0.5, -1, 500).photos
    assert (first.photo.name, first.copies) == ("frog.jpg", 2)
    assert {photo.copies for photo in others} == {1}
    review.give_verdict(frog, first.photo.photo_id, "rejected")
    review.apply(write=False)
    assert leaves(own_root / "2024" / "again.jpg") == leaves(own_root / "frog.jpg") == []


# Verdicts


def test_undo_brings_the_former_verdict_back(
    root: Path, open_review: Callable[..., Review]
) -> None:
    review = open_review()
    lion, photo = label_id(review, "lion"), photo_id(review, "lion.jpg")
    review.give_verdict(lion, photo, "unsure")
    review.give_verdict(lion, photo, "rejected")
    review.give_verdict(lion, photo, "rejected")  # nothing new
    undone = review.undo()
    assert undone
    assert (undone.label.name, undone.photo_id, undone.verdict) == ("lion", photo, "unsure")
    assert shown(review, lion, "unsure") == ["lion.jpg"]
    undone = review.undo()
    assert undone
    assert undone.verdict is None
    assert len(shown(review, lion, "undecided")) == len(NAMES)
    assert review.undo() is None


def test_verdicts_are_in_the_store_and_no_file_changes(
    root: Path, open_review: Callable[..., Review]
) -> None:
    before = state(root)
    review = open_review()
    lion, photo = label_id(review, "lion"), review.photo(photo_id(review, "lion.jpg"))
    review.give_verdict(lion, photo.photo_id, "rejected")
    assert photo.content_hash
    with Store.open() as store:
        assert store.verdicts.find([photo.content_hash]) == {photo.content_hash: {lion: "rejected"}}
    review.apply(write=False)
    assert leaves(root / "lion.jpg") == []
    assert state(root) == before


def test_unknown_labels_and_photos(root: Path, open_review: Callable[..., Review]) -> None:
    review = open_review()
    lion, photo = label_id(review, "lion"), photo_id(review, "lion.jpg")
    for wrong in (0, photo + 10_000):
        with pytest.raises(NotReviewedError, match=f"photo {wrong}"):
            review.give_verdict(lion, wrong, "accepted")
    for wrong in (0, lion + 10_000):
        with pytest.raises(NotReviewedError, match=f"no label {wrong}"):
            review.give_verdict(wrong, photo, "accepted")


def test_no_verdicts_while_they_are_applied(
    root: Path, open_review: Callable[..., Review], monkeypatch: pytest.MonkeyPatch
) -> None:
    review = open_review()
    lion, photo = label_id(review, "lion"), photo_id(review, "lion.jpg")
    began, go_on = threading.Event(), threading.Event()

    def slow(*, write: bool) -> Any:
        began.set()
        assert go_on.wait(20)

    monkeypatch.setattr(review._applier, "apply", slow)
    with ThreadPoolExecutor(1) as pool:
        applying = pool.submit(review.apply, write=False)
        assert began.wait(20)
        for refused in (
            lambda: review.give_verdict(lion, photo, "accepted"),
            review.undo,
            lambda: review.set_threshold(lion, 0.5),
            lambda: review.apply(write=False),
            review.pending,
        ):
            with pytest.raises(BusyError):
                refused()
        go_on.set()
        applying.result()
    review.give_verdict(lion, photo, "accepted")


# Thresholds


def test_a_threshold_of_its_own(root: Path, open_review: Callable[..., Review]) -> None:
    review = open_review()
    lion = label_id(review, "lion")
    assert review.thresholds(lion).threshold == 0.5  # the last run's
    thresholds = review.set_threshold(lion, 1.0)
    assert (thresholds.threshold, thresholds.own, thresholds.otherwise) == (1.0, 1.0, 0.5)
    pending = review.pending()
    assert (pending.photos, pending.added, pending.withdrawn) == (1, 0, 1)
    review.apply(write=False)
    assert leaves(root / "lion.jpg") == []
    assert leaves(root / "frog.jpg") == ["frog"]
    review.set_threshold(lion, None)
    assert review.pending().added == 1
    review.apply(write=False)
    assert leaves(root / "lion.jpg") == ["lion"]
    with pytest.raises(InputError, match="from 0 to 1"):
        review.set_threshold(lion, 1.5)


def test_a_fit_needs_some_of_each(root: Path, open_review: Callable[..., Review]) -> None:
    review = open_review()
    lion = label_id(review, "lion")
    order = [photo.photo.photo_id for photo in review.page(lion, "all", 0.5, -1, 500).photos]
    for photo in order[:3]:
        review.give_verdict(lion, photo, "accepted")
    with pytest.raises(InputError, match="3 accepted and 0 rejected: a threshold needs at least 3"):
        review.fit_threshold(lion, 0.9)
    for photo in order[3:6]:
        review.give_verdict(lion, photo, "rejected")
    fitted = review.fit_threshold(lion, 0.9)
    probabilities = review.probabilities(lion)
    assert (fitted.how, fitted.threshold) == ("f1", probabilities[2])
    assert (fitted.precision, fitted.recall, fitted.decided) == (1.0, 1.0, 6)
    assert "25 of 25" in fitted.note
    assert review.thresholds(lion).own is None, "it is only said"


def test_a_fit_keeps_the_precision_where_the_photos_show_it() -> None:
    probabilities = np.linspace(1, 0, 60)
    accepted = np.arange(60) < 30
    accepted[40] = True
    fitted = fit(probabilities, accepted, 0.9)
    assert fitted.how == "precision"
    # 30 of 30 show that 90 % is kept, and 30 of 31 do not.
    assert fitted.threshold == probabilities[29]
    assert (fitted.precision, fitted.recall) == (1.0, 30 / 31)


def test_a_fit_cuts_no_equal_probabilities_apart() -> None:
    probabilities = np.array([0.9, 0.8, 0.5, 0.5, 0.5, 0.5, 0.1])
    accepted = np.array([True, True, True, False, False, False, False])
    fitted = fit(probabilities, accepted, 0.9)
    assert (fitted.how, fitted.threshold) == ("f1", 0.8)
    assert (fitted.precision, fitted.recall) == (1.0, 2 / 3)


# Applying


def test_apply_writes_sidecars_only_if_asked(
    own_root: Path, open_review: Callable[..., Review]
) -> None:
    review = open_review()
    assert not review.writes
    lion, frog = label_id(review, "lion"), label_id(review, "frog")
    review.give_verdict(lion, photo_id(review, "lion.jpg"), "rejected")
    review.give_verdict(frog, photo_id(review, "pizza.jpg"), "accepted")
    assert review.changes == 2
    pending = review.pending()
    assert (pending.photos, pending.added, pending.withdrawn) == (1, 1, 0)
    assert pending.sidecars == len(NAMES) - 1, "none has one yet, and the lion needs none"
    before = state(own_root)
    applied = review.apply(write=False)
    assert (applied.photos, applied.added, applied.written) == (1, 1, 0)
    assert state(own_root) == before
    assert review.changes == 0
    applied = review.apply(write=True)
    assert (applied.photos, applied.written, applied.problems) == (0, len(NAMES) - 1, [])
    assert "<rdf:li>frog</rdf:li>" in (own_root / "pizza.jpg.xmp").read_text(encoding="utf-8")
    assert not (own_root / "lion.jpg.xmp").exists()
    assert review.pending().sidecars == 0
    assert review.apply(write=True).written == 0


def test_apply_takes_a_rejected_tag_out_of_its_sidecar(
    own_root: Path, open_review: Callable[..., Review]
) -> None:
    tag(own_root, write="sidecar")
    review = open_review()
    assert review.writes, "the last run did"
    before = state(own_root)
    review.give_verdict(label_id(review, "lion"), photo_id(review, "lion.jpg"), "rejected")
    assert review.pending().sidecars == 1
    applied = review.apply(write=True)
    assert (applied.written, applied.removed) == (0, 1)
    after = state(own_root)
    assert set(before) - set(after) == {"lion.jpg.xmp"}
    assert after == {name: before[name] for name in after}


def test_apply_decides_as_the_last_run_over_each_folder_did(
    own_root: Path, open_review: Callable[..., Review]
) -> None:
    tag(own_root, tags=TagSettings(root="robot"))
    tag(own_root / "2024", tags=TagSettings(root="other"), exclude=("octopus*",))
    review = open_review()
    pizza = label_id(review, "pizza")
    for name in ("frog.jpg", "automobile.jpg", "octopus.jpg"):
        review.give_verdict(pizza, photo_id(review, name), "accepted")
    review.apply(write=False)
    with Store.open() as store:
        roots = {
            photo.name: {tag.path[0] for tag in store.tags.find([photo.photo_id])[photo.photo_id]}
            for photo in store.photos.iterate(under=str(own_root))
        }
    assert roots["frog.jpg"] == roots["lion.jpg"] == {"robot"}
    assert roots["automobile.jpg"] == {"other"}
    assert roots["octopus.jpg"] == {"robot"}, "the last run over its folder leaves it out"


def test_apply_is_limited_to_the_folder(own_root: Path, open_review: Callable[..., Review]) -> None:
    review = open_review(own_root / "2024")
    before = state(own_root)
    review.apply(write=True)
    fresh = set(state(own_root)) - set(before)
    assert fresh == {"2024/octopus.jpg.xmp", "2024/automobile.jpg.xmp"}


def test_new_and_changed_files_wait(own_root: Path, open_review: Callable[..., Review]) -> None:
    review = open_review()
    put(own_root, "umbrella")
    review.give_verdict(label_id(review, "lion"), photo_id(review, "pizza.jpg"), "accepted")
    applied = review.apply(write=False)
    assert (applied.photos, applied.waiting) == (1, 1)


def test_apply_while_a_run_is_at_work(root: Path, open_review: Callable[..., Review]) -> None:
    review = open_review()
    review.give_verdict(label_id(review, "lion"), photo_id(review, "pizza.jpg"), "accepted")
    with (
        run_lock(review.index.store.location.files),
        pytest.raises(Exception, match="another run is at work"),
    ):
        review.apply(write=False)
    assert review.changes == 1
    assert review.apply(write=False).photos == 1


def test_settings_come_back_from_the_store(root: Path) -> None:
    settings = RunSettings(
        (str(root),),
        ("*.tif",),
        TagSettings(root="x", only=("animals",), ancestors=True),
        write="sidecar",
    )
    assert RunSettings.from_record(json.loads(json.dumps(asdict(settings)))) == settings
    assert RunSettings.from_record({"roots": ["/a"]}) == RunSettings(("/a",))


# Thumbnails


def test_thumbnails_are_small_and_upright(
    own_root: Path, open_review: Callable[..., Review]
) -> None:
    with Image.open(own_root / "frog.jpg") as image:
        wide = image.resize((1_000, 400))
    exif = Image.Exif()
    exif[0x0112] = 6
    wide.save(own_root / "frog.jpg", exif=exif)
    tag(own_root)
    review = open_review()
    data = Thumbnails().get(review.photo(photo_id(review, "frog.jpg")), SMALL)
    with Image.open(io.BytesIO(data)) as made:
        assert made.format == "JPEG"
        assert made.size == (128, 320)
        assert not made.getexif()


def test_thumbnails_are_cached_within_bounds(
    root: Path, open_review: Callable[..., Review], monkeypatch: pytest.MonkeyPatch
) -> None:
    review = open_review()
    photos = [review.photo(id_) for id_ in review.photos.photo_ids.tolist()]
    made: list[str] = []

    def count(path: str, side: int) -> bytes:
        made.append(path)
        return b"x" * 100

    monkeypatch.setattr(thumbnails, "_render", count)
    some = Thumbnails(cache_bytes=250)
    for photo in (photos[0], photos[1], photos[0], photos[2], photos[0], photos[1]):
        some.get(photo, SMALL)
    # The third pushes out the one that was not asked for last.
    assert made == [photos[position].path for position in (0, 1, 2, 1)]
    assert some._cache.currsize == 200


def test_a_photo_that_has_changed_is_not_shown(
    own_root: Path, open_review: Callable[..., Review]
) -> None:
    review = open_review()
    frog = review.photo(photo_id(review, "frog.jpg"))
    some = Thumbnails()
    assert some.get(frog, SMALL)
    put(own_root, "pizza", variant=3)
    shutil.copy(own_root / "pizza-3.jpg", own_root / "frog.jpg")
    with pytest.raises(ImageError, match="has changed since it was tagged"):
        some.get(frog, SMALL)
    (own_root / "frog.jpg").unlink()
    with pytest.raises(ImageError, match="cannot be read"):
        some.get(frog, SMALL)


# The server


@pytest.fixture
def server(root: Path, open_review: Callable[..., Review]) -> Iterator[ReviewServer]:
    with ReviewServer(open_review()) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def cookie(server: ReviewServer) -> str:
    return entered(server)


def entered(server: ReviewServer) -> str:
    """Open the first page; return the cookie that it gives."""
    response, _ = ask(server, f"/?token={server.guard.token}")
    assert response.status == 200
    given = response.getheader("Set-Cookie")
    assert given
    assert {"HttpOnly", "SameSite=Strict"} <= set(given.split("; "))
    return given.split(";")[0]


def ask(
    server: ReviewServer,
    path: str,
    cookie: str | None = None,
    body: Any = None,
    *,
    method: str | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[HTTPResponse, Any]:
    """Ask; return the answer and what was read of it, JSON as what it says."""
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    sent = {} if cookie is None else {"Cookie": cookie}
    data = body
    if body is not None:
        sent["Content-Type"] = "application/json"
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
    chosen = method or ("GET" if body is None else "POST")
    connection.request(chosen, path, data, sent | (headers or {}))
    response = connection.getresponse()
    content = response.read()
    connection.close()
    if response.getheader("Content-Type") == "application/json":
        content = json.loads(content)
    return response, content


PATHS = ("/", "/review.js", "/api/session", "/api/labels", "/photos/1/small", "/nowhere")


def test_nothing_without_the_token(server: ReviewServer) -> None:
    for path in PATHS:
        for wrong in ("", "?token=", "?token=wrong", "?token=" + server.guard.token[:-1]):
            response, content = ask(server, path + wrong)
            assert (response.status, "Set-Cookie" in response.headers) == (403, False), path
            assert set(content) == {"error"}
        for cookie in ("zsic-review=x", f"zsic-review-{server.server_port}=wrong", "=;=", ";"):
            assert ask(server, path, cookie)[0].status == 403
    for path in ("/api/undo", "/api/verdicts", "/api/apply"):
        assert ask(server, path, body={})[0].status == 403
    # Not even the token, but on the first page.
    assert ask(server, f"/api/session?token={server.guard.token}")[0].status == 403
    assert ask(server, f"/api/undo?token={server.guard.token}", body={})[0].status == 403


def test_the_token_opens_one_browser(server: ReviewServer) -> None:
    cookie = entered(server)
    first = f"/?token={server.guard.token}"
    assert ask(server, first)[0].status == 403
    response, _ = ask(server, first, cookie)
    assert (response.status, "Set-Cookie" in response.headers) == (200, False)
    assert ask(server, "/api/session", cookie)[0].status == 200


def test_only_one_of_many_gets_in_at_once() -> None:
    guard = Guard(1)

    class Headers:
        def get_all(self, name: str, otherwise: list[str]) -> list[str]:
            return ["127.0.0.1:1"] if name == "Host" else otherwise

        def get(self, name: str, otherwise: str) -> str:
            return otherwise

    def enter(_: int) -> bool:
        try:
            return guard.admit(Headers(), guard.token) is not None
        except RefusedError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(enter, range(64))) == 1


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "[::1]:{port}",
     "127.0.0.1:{port}@evil.example", "127.1:{port}", "0.0.0.0:{port}", "", "127.0.0.1:port"],
)  # fmt: skip
def test_another_host_is_refused(server: ReviewServer, cookie: str, host: str) -> None:
    host = host.format(port=server.server_port)
    for path in ("/", "/api/session", "/photos/1/small"):
        response, _ = ask(server, path, cookie, headers={"Host": host})
        assert response.status == 421
    assert ask(server, "/api/undo", cookie, {}, headers={"Host": host})[0].status == 421


def test_two_hosts_or_none_are_refused(server: ReviewServer, cookie: str) -> None:
    port = server.server_port
    for hosts in ("", f"Host: 127.0.0.1:{port}\r\nHost: evil.example\r\n"):
        text = f"GET /api/session HTTP/1.1\r\n{hosts}Cookie: {cookie}\r\nConnection: close\r\n\r\n"
        assert raw(server, text.encode()).startswith(b"HTTP/1.1 421 ")


def test_this_host_by_name(server: ReviewServer, cookie: str) -> None:
    headers = {"Host": f"localhost:{server.server_port}"}
    assert ask(server, "/api/session", cookie, headers=headers)[0].status == 200


def test_another_page_is_refused(server: ReviewServer, cookie: str) -> None:
    port = server.server_port
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": f"http://127.0.0.1:{port + 1}"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert ask(server, "/api/undo", cookie, {}, headers=headers)[0].status == 403
        assert ask(server, "/api/session", cookie, headers=headers)[0].status == 403
    own = {"Origin": f"http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}
    assert ask(server, "/api/undo", cookie, {}, headers=own)[0].status == 200


def test_a_form_cannot_post(server: ReviewServer, cookie: str) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        headers = {"Content-Type": kind}
        assert ask(server, "/api/undo", cookie, b"{}", headers=headers)[0].status == 415


def test_bodies_are_bounded(server: ReviewServer, cookie: str) -> None:
    response, content = ask(server, "/api/undo", cookie, b" " * (MAX_BODY_BYTES + 1))
    assert (response.status, content["error"]) == (413, "65,537 bytes; the limit is 65,536")
    head = (
        f"POST /api/undo HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie}\r\n"
        "Content-Type: application/json\r\n"
    )
    # Answered without any of it.
    for length, status in (("999999999999", 413), ("-1", 400), ("1e3", 400)):
        answer = raw(server, f"{head}Content-Length: {length}\r\n\r\n".encode())
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    for more in (
        "",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 2\r\nContent-Length: 3\r\n",
    ):
        assert raw(server, f"{head}{more}\r\n".encode()).startswith(b"HTTP/1.1 411 ")
    assert ask(server, "/api/undo", cookie, {})[0].status == 200


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"3", b"\xff", b"[" * 60_000, b'{"label": NaN}']
)
def test_bodies_that_are_no_object(server: ReviewServer, cookie: str, body: bytes) -> None:
    assert ask(server, "/api/verdicts", cookie, body)[0].status == 400


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/photos/..%2f..%2fetc%2fpasswd/small",
     "/photos//etc/passwd/small", "/review/page/index.html", "//etc/passwd", "/index.html",
     "/photos/1/small/..", "/photos/1e1/small", "/photos/١/small", "/photos/-1/small",
     "/photos/99999999999999999999/small", "/api/labels/1/../../x", "/session.py"],
)  # fmt: skip
def test_no_path_is_opened(
    server: ReviewServer, cookie: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    monkeypatch.setattr(Path, "open", lambda self, *_, **__: opened.append(self))
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie}\r\n"
    answer = raw(server, f"{request}Connection: close\r\n\r\n".encode())
    assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 ")), answer[:80]
    assert not opened


def test_unknown_ids(server: ReviewServer, cookie: str) -> None:
    for path in ("/photos/0/small", "/photos/12345/large", "/api/labels/0", "/api/labels/99999",
                 "/api/labels/99999/probabilities", "/api/labels/99999/photos"):  # fmt: skip
        assert ask(server, path, cookie)[0].status == 404, path
    lion = label_id(server.api._review, "lion")
    response, content = ask(
        server, "/api/verdicts", cookie, {"label": lion, "photo": 12345, "verdict": "accepted"}
    )
    assert response.status == 404
    assert "photo 12345 is not among those reviewed" in content["error"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/verdicts", {}),
        ("/api/verdicts", {"label": "x", "photo": 1, "verdict": "accepted"}),
        ("/api/verdicts", {"label": True, "photo": 1, "verdict": "accepted"}),
        ("/api/verdicts", {"label": 1e300, "photo": 1, "verdict": "accepted"}),
        ("/api/verdicts", {"label": 10**40, "photo": 1, "verdict": "accepted"}),
        ("/api/verdicts", {"label": 1, "photo": 1, "verdict": "fine"}),
        ("/api/verdicts", {"label": 1, "photo": 1, "verdict": ["accepted"]}),
        ("/api/thresholds", {"label": 1, "threshold": 2}),
        ("/api/thresholds", {"label": 1, "threshold": "much"}),
        ("/api/thresholds", {"label": 1, "threshold": 10**400}),
        ("/api/fit", {"label": 1, "precision": [0.9]}),
        ("/api/apply", {"write": "yes"}),
    ],
)
def test_values_that_will_not_do(
    server: ReviewServer, cookie: str, path: str, body: dict[str, Any]
) -> None:
    response, content = ask(server, path, cookie, body)
    assert response.status == 400
    assert content["error"]


def test_every_answer_has_the_headers(server: ReviewServer, cookie: str) -> None:
    answers = [
        ask(server, "/", cookie),
        ask(server, "/review.js", cookie),
        ask(server, "/api/session", cookie),
        ask(server, f"/photos/{photo_id(server.api._review, 'frog.jpg')}/small", cookie),
        ask(server, "/nowhere", cookie),
        ask(server, "/", None),
        ask(server, "/", cookie, method="DELETE"),
        ask(server, "/", cookie, method="OPTIONS"),
    ]
    assert [response.status for response, _ in answers] == [200] * 4 + [404, 403, 501, 501]
    for response, _ in answers:
        policy = response.getheader("Content-Security-Policy")
        assert policy
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.getheader("X-Content-Type-Options") == "nosniff"
        assert response.getheader("Cache-Control") == "no-store"
        assert response.getheader("Referrer-Policy") == "no-referrer"
        assert response.getheader("Access-Control-Allow-Origin") is None
        assert response.getheader("Server") == "zsic-index"
    assert answers[3][1].startswith(b"\xff\xd8")


def test_the_page_loads_nothing_from_elsewhere(server: ReviewServer, cookie: str) -> None:
    paths = ["/", "/review.css", "/review.js"]
    texts = {}
    while paths:
        path = paths.pop()
        response, texts[path] = ask(server, path, cookie)
        assert response.status == 200
        # The modules that it imports, and those that they import.
        modules = re.findall(rb'from "(\./[^"]+)"', texts[path])
        imported = {urljoin(path, module.decode()) for module in modules}
        paths += imported - texts.keys() - set(paths)
    assert {"/keys.js", "/shared/dom.js", "/shared/text.js"} < texts.keys()
    text = b"".join(texts.values())
    assert set(re.findall(rb"https?://[^\s\"')]*", text)) == set()
    assert not re.search(rb"<script(?! type=\"module\" src)|<style|\sstyle=|\son\w+=", text)


def test_a_review_by_its_server(server: ReviewServer, cookie: str, root: Path) -> None:
    session = ask(server, "/api/session", cookie)[1]
    assert (session["photos"], session["labels"], session["writes"]) == (len(NAMES), 12, False)
    assert session["photos_per_page"] == 120
    labels = ask(server, "/api/labels?search=li&number=1", cookie)[1]
    (lion,) = [label for label in labels["labels"] if label["name"] == "lion"]
    assert (labels["total"], lion["path"], lion["tagged"]) == (1, ["animals", "mammals"], 1)
    label = ask(server, f"/api/labels/{lion['id']}", cookie)[1]
    assert (label["threshold"], label["own"], label["otherwise"]) == (0.5, None, 0.5)
    photos = ask(server, f"/api/labels/{lion['id']}/photos?number=2", cookie)[1]
    assert (photos["total"], len(photos["photos"])) == (len(NAMES), 2)
    raw_numbers = ask(server, f"/api/labels/{lion['id']}/probabilities", cookie)[1]
    probabilities = np.frombuffer(raw_numbers, "<f8")
    assert probabilities[:2].tolist() == [photo["probability"] for photo in photos["photos"]]
    first = photos["photos"][0]["id"]
    verdict = {"label": lion["id"], "photo": first, "verdict": "rejected"}
    assert ask(server, "/api/verdicts", cookie, verdict)[1]["changes"] == 1
    assert leaves(root / "lion.jpg") == []
    undone = ask(server, "/api/undo", cookie, {})[1]["undone"]
    assert (undone["photo"], undone["verdict"]) == (first, None)
    assert ask(server, "/api/pending", cookie)[1] == {
        "photos": 1, "added": 1, "withdrawn": 0, "sidecars": len(NAMES),
    }  # fmt: skip
    applied = ask(server, "/api/apply", cookie, {"write": False})[1]
    assert (applied["added"], applied["written"]) == (1, 0)
    assert leaves(root / "lion.jpg") == ["lion"]
    assert ask(server, "/api/undo", cookie, {})[1] == {"undone": None, "changes": 0}


def test_many_at_once(server: ReviewServer, cookie: str) -> None:
    review = server.api._review
    labels = review.index.label_ids.tolist()
    photos = review.photos.photo_ids.tolist()
    requests: list[tuple[str, Any]] = []
    for label in labels:
        requests += [(f"/api/labels/{label}/photos", None), (f"/api/labels/{label}", None)]
        requests += [
            ("/api/verdicts", {"label": label, "photo": photo, "verdict": "unsure"})
            for photo in photos
        ]
    requests += [(f"/photos/{photo}/small", None) for photo in photos] * 3
    with ThreadPoolExecutor(12) as pool:
        responses = list(
            pool.map(lambda request: ask(server, request[0], cookie, request[1]), requests)
        )
    assert {response.status for response, _ in responses} == {200}
    for label in labels:
        assert review.verdict_counts(label)["unsure"] == len(photos)
    assert review.changes == len(labels) * len(photos)


def test_a_crash_says_nothing_of_itself(
    server: ReviewServer, cookie: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def fail() -> None:
        raise ValueError("secret path")

    monkeypatch.setattr(server.api._review, "pending", fail)
    response, content = ask(server, "/api/pending", cookie)
    assert response.status == 500
    assert content == {"error": "unexpected ValueError; see the terminal"}
    assert ask(server, "/api/session", cookie)[0].status == 200


def test_it_listens_on_this_machine_only(server: ReviewServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(InputError, match="cannot be listened on"):
        ReviewServer(server.api._review, server.server_port)


def raw(server: ReviewServer, text: bytes) -> bytes:
    """Send bytes as they are; return the whole answer."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
        connection.sendall(text)
        parts = []
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts)


# The command


def test_the_command_serves_until_ctrl_c(root: Path) -> None:
    # A shell starts background jobs, which this may be one of, without Ctrl-C.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from zsic_index.cli import main; main(prog_name='zsic-index')"
    )
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code, "review", "-n", "things", "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
        match = re.fullmatch(
            r"7 photos, 12 labels: http://127\.0\.0\.1:(\d+)(/\?token=\S+)\n", line
        )
        assert match, (line, process.poll() is not None and process.communicate()[1])
        connection = HTTPConnection("127.0.0.1", int(match[1]), timeout=20)
        connection.request("GET", match[2])
        assert connection.getresponse().status == 200
        connection.close()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()
        process.communicate()


def test_the_command_says_what_is_missing(root: Path, tmp_path: Path) -> None:
    for words, message in (
        (["-n", "other"], "other"),
        (["-n", "things", "--under", str(tmp_path)], "run 'zsic-index tag' first"),
        (["-n", "things", "--decode", "exact"], "run 'zsic-index tag' first"),
    ):
        result = CliRunner().invoke(main, ["review", "--no-browser", *words])
        assert result.exit_code == 1
        assert message in result.output
