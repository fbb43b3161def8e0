"""Check every number on a GPU, and time what binds the speed.

    python -m tests.tools.gpu_check [--device cuda] [--small] [--json FILE] [--only SECTION]...

Each section compares the device with the CPU on the same machine, or times it, and adds rows to a
table; the JSON file is written again after every row, so that a run that is cut off leaves what it
had. A section that fails, or for which no time is left, says so in the table, and the others go on.
The exit code is 1 if a check failed.

Pixels are computed once and go to both devices, so that it does not matter whether torchvision is
installed. On ``cpu`` at ``--small`` all sections run in half a minute: out of memory is then
simulated, and says so. The machine needs no network: what it lacks beside torch and transformers
can be brought as wheels (``pip download --only-binary :all: --no-deps`` of the dependencies in
pyproject.toml and of the extra ``serve``: 39 MB).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from tests.support import models, oracle
from tests.support.pictures import picture
from tests.support.towers import encode_jpegs, random_encoder, tower_configs
from zsic_index import LabelIndex, builtin, encoders
from zsic_index.bench import checkpoints
from zsic_index.encoders.transformers.encoder import TransformersEncoder
from zsic_index.formats.text import write_columns
from zsic_index.images import opening
from zsic_index.parallel import available_cores
from zsic_index.records import ModelInfo
from zsic_index.scan import exact
from zsic_index.scan.device import DeviceMatrix
from zsic_index.scan.groups import Grouping, Reduction
from zsic_index.scan.pooling import How, Pooling

MAX_CHANGE = 1e-5
"""Largest change of a probability in float32: the contract."""

MAX_SUMS_OFF = 1e-6
"""Largest relative change of a log-partition, or absolute change of the probability of a group."""

LABELS = tuple(f"label {number}" for number in range(60))

Row = dict[str, Any]


@dataclass
class Run:
    """A run of all sections.

    Attributes:
        device: name of the device.
        small: True for sizes that a CPU computes in seconds.
        folder: folder for temporary files.
        path: the JSON file, or None.
        deadline: ``time.monotonic()`` at which no further section or row is begun.
        rows: rows of the table.
    """

    device: str
    small: bool
    folder: Path
    path: Path | None
    deadline: float
    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        self.rows.append(row)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        if self.path is not None:
            content = {"machine": describe_machine(self.device), "rows": self.rows}
            self.path.write_text(json.dumps(content, indent=1), encoding="utf-8")

    @property
    def failed(self) -> bool:
        return any(row.get("ok") is False for row in self.rows)


def describe_machine(device: str) -> Row:
    """Return the card, or the processor, and the versions."""
    names = ("torch", "transformers", "numpy", "pillow", "zsic-index")
    machine: Row = {"device": device, "cores": available_cores()}
    machine["python"] = platform.python_version()
    for name in names:
        try:
            machine[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            machine[name] = "not installed: run from its folder"
    if torch.device(device).type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        machine["card"] = properties.name
        machine["memory_gib"] = round(properties.total_memory / 2**30, 1)
    return machine


def check_families(run: Run) -> Iterator[Row]:
    """Every family on the device against the CPU in float32."""
    images = [picture(seed, (50 + seed, 64)) for seed in range(8 if run.small else 32)]
    for name, make in models.MAKERS.items():
        folder = make(run.folder / f"family-{name}")
        reference = _load(folder, "cpu", "float32")
        pixels = [reference.preprocess(image) for image in images]
        expected = _probabilities(reference, pixels)
        for dtype in ("float32", "bfloat16"):
            actual = _probabilities(_load(folder, run.device, dtype), pixels, reference.info)
            change = float(np.abs(actual - expected).max())
            same = float((actual.argmax(1) == expected.argmax(1)).mean())
            row = {"family": name, "dtype": dtype, "change": f"{change:.1e}", "same_first": same}
            if dtype == "float32":
                row["ok"] = change <= MAX_CHANGE
            yield row
        yield {"family": name, "bytes_same": _same_by_bytes(run, folder, images)}


def _same_by_bytes(run: Run, folder: Path, images: list[Image.Image]) -> bool | str:
    """Tell whether pixels that the device normalises give the embeddings of ready ones."""
    encoder = _load(folder, run.device, "float32")
    reference = _load(folder, "cpu", "float32")
    encoder.normalise_on_device()
    pixels = [encoder.preprocess(image) for image in images]
    if pixels[0]["pixel_values"].dtype != np.uint8:
        return "transformers normalises"
    ready = encoder.encode_images([reference.preprocess(image) for image in images])
    return bool((encoder.encode_images(pixels).embeddings == ready.embeddings).all())


def check_scan(run: Run) -> Iterator[Row]:
    """The device scan against the CPU's: rows, similarities and log-partition."""
    sizes = [(5_000, "float32"), (5_000, "float16")] if run.small else [
        (1_000_000, "float32"), (1_000_000, "float16"), (10_000_000, "float16")
    ]  # fmt: skip
    bandwidth = _bandwidth(run)
    yield {"bandwidth_gb_s": round(bandwidth / 1e9, 1)}
    matrix = np.empty((0, 512), np.float32)
    for count, dtype in sizes:
        if len(matrix) != count:
            matrix = _unit_rows(count, run.device)
        on_device = DeviceMatrix(matrix, run.device, dtype)  # type: ignore[arg-type]
        for batch in (1, 8) if run.small else (1, 8, 64):
            queries = _unit_rows(batch, "cpu", seed=batch)
            expected = exact.scan(matrix, queries, 5, logit_scale=100.0)
            actual = on_device.scan(queries, 5, logit_scale=100.0)
            seconds = _median_time(
                run, lambda m=on_device, q=queries: m.scan(q, 5, logit_scale=100.0)
            )
            assert actual.log_partition is not None
            assert expected.log_partition is not None
            off = float(np.abs(actual.log_partition - expected.log_partition).max())
            limit = 100.0 * on_device.rounding + 1e-5
            size = matrix.nbytes // (1 if dtype == "float32" else 2)
            yield {
                "labels": count, "dtype": dtype, "batch": batch,
                "rows_equal": bool((actual.rows == expected.rows).all()),
                "partition_off": f"{off:.1e}", "ms": round(1e3 * seconds, 2),
                "share_of_bandwidth": round(size / seconds / bandwidth, 2),
                "ok": bool((actual.rows == expected.rows).all()) and off <= limit,
            }  # fmt: skip
        del on_device


def check_reductions(run: Run) -> Iterator[Row]:
    """Pooled names, label bias and groups in the device scan, against the CPU's."""
    labels, groups = (2_000, 90) if run.small else (500_000, 20_000)
    rng = np.random.default_rng(0)
    matrix = _unit_rows(2 * labels, run.device)
    on_device = DeviceMatrix(matrix, run.device)
    group_of = np.sort(rng.integers(0, groups, labels))
    label_bias = rng.normal(0, 0.02, labels).astype(np.float32)
    hows: tuple[How, ...] = ("max", "mass")
    reductions: tuple[Reduction | None, ...] = (None, "sum", "max", "noisy-or")
    batches = (1, 8) if run.small else (1, 64)
    for how, reduction, batch in itertools.product(hows, reductions, batches):
        queries = _unit_rows(batch, "cpu", seed=batch)
        softmax = reduction in (None, "sum")
        options: dict[str, Any] = {
            "logit_scale": 100.0,
            "logit_bias": 0.0 if softmax else -22.0,
            "pooling": Pooling(np.arange(0, 2 * labels + 1, 2), how),
            "label_bias": label_bias,
            "partition": softmax,
            "grouping": None if reduction is None else Grouping(group_of, groups, reduction),
        }
        expected = exact.scan(matrix, queries, 5, **options)
        actual = on_device.scan(queries, 5, **options)
        again = on_device.scan(queries, 5, **options)
        seconds = _median_time(run, lambda q=queries, o=options: on_device.scan(q, 5, **o))
        same = bool(
            (actual.rows == expected.rows).all()
            and (actual.similarities == expected.similarities).all()
        )
        off = [0.0]
        if actual.log_partition is not None and expected.log_partition is not None:
            ratio = actual.log_partition / expected.log_partition
            off.append(float(np.abs(ratio - 1).max()))
        if actual.groups is not None and expected.groups is not None:
            off.append(float(np.abs(actual.groups - expected.groups).max()))
        yield {
            "names": how, "groups": reduction or "none", "batch": batch, "rows_equal": same,
            "sums_off": f"{max(off):.1e}",
            "repeats": _equal(actual.groups, again.groups), "ms": round(1e3 * seconds, 2),
            "ok": same and max(off) <= MAX_SUMS_OFF,
        }  # fmt: skip


def _equal(groups: np.ndarray | None, others: np.ndarray | None) -> bool:
    return groups is None or others is None or bool((groups == others).all())


def time_towers(run: Run) -> Iterator[Row]:
    """Images a second of vision towers of published sizes, alone and from files, and the bound."""
    batches = (2, 4) if run.small else (32, 128, 512)
    dtypes = ("float32",) if run.small else ("float32", "bfloat16")
    files = encode_jpegs(8 if run.small else 1_024)
    for name, config in tower_configs(small=run.small).items():
        for dtype in dtypes:
            encoder = random_encoder(config, run.device, dtype)
            yield from _time_stages(run, name, dtype, encoder, files, batches)
            del encoder
            _empty_cache(run)


def _time_stages(
    run: Run,
    name: str,
    dtype: str,
    encoder: TransformersEncoder,
    files: list[bytes],
    batches: tuple[int, ...],
) -> Iterator[Row]:
    pool = ThreadPoolExecutor(available_cores())
    decode = _rate(len(files), lambda: list(pool.map(_decode, files)))
    images = list(pool.map(_decode, files))
    preprocess = _rate(len(files), lambda: list(pool.map(encoder.preprocess, images)))
    pixels = list(pool.map(encoder.preprocess, images))
    base = {"tower": name, "dtype": dtype}
    yield base | {"decode_s": round(decode), "preprocess_s": round(preprocess)}
    values = np.stack([entry["pixel_values"] for entry in pixels])
    for size in batches:
        if time.monotonic() > run.deadline:
            return
        part = torch.from_numpy(np.resize(values, (size, *values.shape[1:])))
        copy = size / _median_time(run, lambda p=part: p.to(run.device))
        on_device = part.to(run.device)
        tower = size / _median_time(
            run, lambda p=on_device: encoder.encode_pixels({"pixel_values": p})
        )
        rates = {"decode": decode, "preprocess": preprocess, "copy": copy, "tower": tower}
        # On a CPU decoding and the tower take the same cores.
        bound = min(rates, key=lambda stage: rates[stage])
        yield base | {"batch": size, "copy_s": round(copy), "tower_s": round(tower), "bound": bound}
    size = batches[-1]

    def end_to_end() -> None:
        pending = pool.map(lambda data: encoder.preprocess(_decode(data)), files)
        batch = []
        for entry in pending:
            batch.append(entry)
            if len(batch) == size:
                encoder.encode_images(batch)
                batch = []
        if batch:
            encoder.encode_images(batch)

    yield base | {"batch": size, "end_to_end_s": round(_rate(len(files), end_to_end))}
    pool.shutdown()


def time_build(run: Run) -> Iterator[Row]:
    """Labels a second of a build."""
    count = 200 if run.small else 20_000
    model = "builtin:clip"
    if not run.small:
        folder = run.folder / "vit-b-32"
        checkpoints.write_random_clip(folder)
        model = str(folder)
    started = time.perf_counter()
    with LabelIndex.build(
        checkpoints.two_word_labels(count), model=model, name="timed",
        store=run.folder / "timed.db", device=run.device, runtime="torch",
    ):  # fmt: skip
        seconds = time.perf_counter() - started
    yield {"labels": count, "model": Path(model).name, "labels_s": round(count / seconds)}


def check_memory(run: Run) -> Iterator[Row]:
    """A batch that does not fit is halved until it does, with the same embeddings."""
    encoder = _load(models.make_clip(run.folder / "memory"), run.device, "float32")
    images = [picture(seed, (64, 64)) for seed in range(64)]
    pixels = [encoder.preprocess(image) for image in images]
    expected = encoder.encode_images(pixels).embeddings
    is_real = torch.device(run.device).type == "cuda"
    sizes: list[int] = []
    with _little_memory(run, encoder, sizes):
        encoded = encoder.encode_images(pixels)
    off = float(np.abs(encoded.embeddings - expected).max()) if not encoded.refused else np.inf
    yield {
        "out_of_memory": "real" if is_real else "simulated",
        "passes": len(sizes),
        "off": f"{off:.1e}",
        "ok": off <= 1e-6 and (len(sizes) > 1),
    }


@contextmanager
def _little_memory(run: Run, encoder: TransformersEncoder, sizes: list[int]) -> Iterator[None]:
    """Leave memory for a few images only; on a CPU raise what a GPU would."""
    tower = encoder.image_features
    held: list[torch.Tensor] = []
    is_cuda = torch.device(run.device).type == "cuda"

    def counted(**inputs: torch.Tensor) -> torch.Tensor:
        sizes.append(len(inputs["pixel_values"]))
        if not is_cuda and sizes[-1] > 16:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        if is_cuda and sizes[-1] > 16:
            # More than the card has: what a large model would ask for at this batch.
            held.append(torch.empty(2 * torch.cuda.mem_get_info(run.device)[1], device=run.device))
        return tower(**inputs)

    encoder.image_features = counted  # type: ignore[method-assign]
    try:
        yield
    finally:
        del encoder.image_features  # type: ignore[method-assign]
        held.clear()
        _empty_cache(run)


def time_service(run: Run) -> Iterator[Row]:
    """A service under many clients, each with its next request when the last is answered."""
    missing = [name for name in ("fastapi", "uvicorn", "httpx2") if find_spec(name) is None]
    if missing:
        yield {"serve": f"not run: {', '.join(missing)} not installed"}
        return
    clients, requests = (8, 32) if run.small else (64, 4_000)
    store = run.folder / "served.db"
    LabelIndex.build(
        builtin.emoji_labels(), model="builtin:clip", name="emoji", store=store,
        device=run.device, runtime="torch",
    ).close()  # fmt: skip
    body = builtin.samples()[0].read_bytes()
    results: list[tuple[float, int]] = []
    with _serving(run, store) as url:
        _post(url, body, 2)
        with ThreadPoolExecutor(clients) as pool:
            started = time.perf_counter()
            pending = [pool.submit(_post, url, body, requests // clients) for _ in range(clients)]
            results = [result for future in pending for result in future.result()]
            elapsed = time.perf_counter() - started
    ordered = sorted(seconds for seconds, _ in results)
    yield {
        "clients": clients, "requests": len(results),
        "requests_s": round(len(results) / elapsed, 1),
        "median_ms": round(1e3 * statistics.median(ordered), 1),
        "p99_ms": round(1e3 * ordered[int(0.99 * (len(ordered) - 1))], 1),
        "ok": {status for _, status in results} == {200},
    }  # fmt: skip


@contextmanager
def _serving(run: Run, store: Path) -> Iterator[str]:
    """Run ``zsic-index serve`` in a process of its own, and yield its address when it is ready."""
    import httpx2

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--store", store, "--port", port, "--device", run.device, "--runtime", "torch"]
    command = [sys.executable, "-m", "zsic_index", "serve", *map(str, options)]
    url = f"http://127.0.0.1:{port}"
    with (run.folder / "serve.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(600):
            with suppress(httpx2.HTTPError):
                if httpx2.get(f"{url}/readyz").status_code == 200:
                    break
            if process.poll() is not None:
                raise RuntimeError((run.folder / "serve.log").read_text()[-500:])
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _post(url: str, image: bytes, count: int) -> list[tuple[float, int]]:
    """Send an image some times; return the seconds and the status of each answer."""
    import httpx2

    results = []
    with httpx2.Client(base_url=url, timeout=60) as client:
        for _ in range(count):
            started = time.perf_counter()
            response = client.post("/v1/classify", files={"images": ("a.png", image)})
            results.append((time.perf_counter() - started, response.status_code))
    return results


SECTIONS: dict[str, Callable[[Run], Iterator[Row]]] = {
    "families": check_families,
    "scan": check_scan,
    "reductions": check_reductions,
    "memory": check_memory,
    "towers": time_towers,
    "build": time_build,
    "serve": time_service,
}
"""Sections by name: checks first, so that they are there when the time is up."""


def perform(run: Run, sections: dict[str, Callable[[Run], Iterator[Row]]]) -> None:
    """Run the sections one after the other."""
    for name, section in sections.items():
        if time.monotonic() > run.deadline:
            run.add({"section": name, "skipped": "no time was left"})
            continue
        started = time.monotonic()
        try:
            for row in section(run):
                run.add({"section": name, **row})
        except Exception as error:
            traceback.print_exc()
            run.add({"section": name, "failed": f"{type(error).__name__}: {error}", "ok": False})
        run.add({"section": name, "seconds": round(time.monotonic() - started, 1)})


def print_tables(run: Run) -> None:
    """Print the rows of each section, a table for each set of columns."""
    print(json.dumps(describe_machine(run.device)))
    tables: dict[tuple[str, ...], list[Row]] = {}
    for row in run.rows:
        tables.setdefault(tuple(row), []).append(row)
    for columns, rows in tables.items():
        write_columns(
            list(columns), [[str(row[key]) for key in columns] for row in rows], sys.stdout
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="sizes for a CPU")
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="section to run")
    parser.add_argument("--minutes", type=float, default=8.0, help="begin nothing after that")
    options = parser.parse_args(arguments)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        deadline = time.monotonic() + 60 * options.minutes
        run = Run(options.device, options.small, Path(folder), options.json, deadline)
        perform(run, {name: SECTIONS[name] for name in options.only or SECTIONS})
    print_tables(run)
    return int(run.failed)


def _load(folder: Path, device: str, dtype: Any) -> TransformersEncoder:
    encoder = encoders.load(encoders.resolve(folder, dtype=dtype), device=device)
    assert isinstance(encoder, TransformersEncoder)
    return encoder


def _probabilities(
    encoder: TransformersEncoder, pixels: list[Any], info: ModelInfo | None = None
) -> np.ndarray:
    """Return (B, N) float64 probabilities; numbers are those of ``info`` if it is given."""
    info = info or encoder.info
    images = encoder.encode_images(pixels).embeddings
    labels = encoder.encode_prompts(LABELS).embeddings
    logits = oracle.similarities(images, labels) * info.logit_scale + info.logit_bias
    if info.activation == "softmax":
        return oracle.softmax(logits)
    return 1 / (1 + np.exp(-logits))


def _unit_rows(count: int, device: str, seed: int = 0) -> np.ndarray:
    """Return (count, 512) random float32 rows of norm 1, drawn on the device."""
    rows = np.empty((count, 512), np.float32)
    generator = torch.Generator(device).manual_seed(seed)
    for start in range(0, count, 1 << 17):
        shape = (min(1 << 17, count - start), 512)
        block = torch.randn(shape, generator=generator, device=device)
        rows[start : start + len(block)] = torch.nn.functional.normalize(block).cpu().numpy()
    return rows


def _synchronise(run: Run) -> None:
    if torch.device(run.device).type == "cuda":
        torch.cuda.synchronize(run.device)


def _empty_cache(run: Run) -> None:
    if torch.device(run.device).type == "cuda":
        torch.cuda.empty_cache()


def _median_time(run: Run, work: Callable[[], object], rounds: int = 5) -> float:
    """Return the median seconds of some work, after a round that is not counted."""
    times = []
    for _ in range(rounds + 1):
        _synchronise(run)
        started = time.perf_counter()
        work()
        _synchronise(run)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def _rate(count: int, work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def _bandwidth(run: Run) -> float:
    """Return the bytes a second that the device reads in a copy within its memory."""
    values = torch.empty(4 << 20 if run.small else 512 << 20, device=run.device)
    target = torch.empty_like(values)
    return 2 * 4 * len(values) / _median_time(run, lambda: target.copy_(values))


def _decode(data: bytes) -> Image.Image:
    return opening.decode(data, "file")


if __name__ == "__main__":
    sys.exit(main())
