"""The ``zsic-index`` command line.

Only click and modules without heavy imports are imported here; each command imports what it needs,
so that ``--help`` answers at once.
"""

from __future__ import annotations

import glob
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from zsic_index import __version__, outputs
from zsic_index.errors import ImageError, ZsicError
from zsic_index.prompts import TEMPLATE_SETS

if TYPE_CHECKING:
    from zsic_index.images import ImageSource
    from zsic_index.records import BuildReport, IndexInfo

EXIT_SOME_REFUSED = 3

Command = TypeVar("Command", bound=Callable[..., Any])


class _Group(click.Group):
    """A group whose commands turn errors into one line; ``--verbose`` shows the trace too."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.meta.get("zsic.verbose"):
                raise
            message = " ".join(str(error).split())
            if not isinstance(error, ZsicError):
                message = (
                    f"unexpected {type(error).__name__}: {message}; "
                    "run again with --verbose for the trace, and please report it"
                )
            raise click.ClickException(message) from error


def _set_verbose(ctx: click.Context, _option: click.Parameter, verbose: bool) -> None:
    if verbose:
        ctx.meta["zsic.verbose"] = True


def common_options(command: Command) -> Command:
    """Add the options that every command has."""
    command = click.option(
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=_set_verbose,
        help="Show the trace of an error.",
    )(command)
    return click.option(
        "--store",
        metavar="PATH_OR_URL",
        envvar="ZSIC_STORE",
        show_envvar=True,
        help="SQLite file, or any SQLAlchemy URL.  [default: the user's data folder]",
    )(command)


model_option = click.option(
    "-m",
    "--model",
    required=True,
    help="builtin:clip, builtin:siglip, a folder, or a Hub id.",
)
name_option = click.option("-n", "--name", required=True, help="Name of the index.")
revision_option = click.option("--revision", help="Branch, tag or commit of a Hub model.")
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."
)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="zsic-index")
def main() -> None:
    """Classify images against a large, fixed set of labels, exactly.

    Label embeddings are computed once and kept; the results are the probabilities of
    transformers' zero-shot image classification pipeline.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some inputs were refused.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger = logging.getLogger("zsic_index")
    logger.handlers[:] = [handler]
    logger.propagate = False
    # Pillow warns of large images, which have their own limit here, and of odd metadata.
    warnings.filterwarnings("ignore", module="PIL")


@main.command()
@click.argument("labels", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@model_option
@click.option(
    "-t",
    "--template",
    "templates",
    multiple=True,
    help="A string with exactly one {}, or a named set: "
    f"{', '.join(TEMPLATE_SETS)}. May be given several times; embeddings are then averaged.  "
    f'[default: "{TEMPLATE_SETS["default"][0]}"]',
)
@name_option
@revision_option
@device_option
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="What both towers compute in, then and when images come.",
)
@click.option("--quiet", is_flag=True, help="No progress and no summary.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@common_options
def build(
    labels: Path,
    model: str,
    templates: tuple[str, ...],
    name: str,
    revision: str | None,
    device: str,
    dtype: Any,
    quiet: bool,
    as_json: bool,
    store: str | None,
) -> None:
    """Build an index of LABELS, encoding only what is new.

    LABELS is a .txt file with one label a line, a .csv or .tsv file with a "label" column, or a
    .json or .jsonl file of strings or of objects with "label".
    """
    from zsic_index import taxonomy
    from zsic_index.label_index import LabelIndex

    checked = taxonomy.read(labels)
    with (
        _Progress(show=not quiet) as progress,
        LabelIndex.build(
            checked,
            model=model,
            templates=templates or None,
            name=name,
            revision=revision,
            store=store,
            device=device,
            dtype=dtype,
            progress=progress,
        ) as index,
    ):
        report = index.report
    assert report is not None, "a built index has a report"
    _warn_about(report, checked.twins)
    _print_report(report, quiet=quiet, as_json=as_json)


@main.command("import")
@click.argument("labels", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("embeddings", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--logit-scale", type=float, required=True, help="Multiplier, exponentiated.")
@click.option("--logit-bias", type=float, default=0.0, show_default=True)
@click.option(
    "--activation",
    type=click.Choice(["softmax", "sigmoid"]),
    default="softmax",
    show_default=True,
)
@click.option("--key", help="Name of the array in an .npz or .safetensors file that has several.")
@name_option
@click.option("-m", "--model", help="The model whose vision tower fits, to query with images.")
@revision_option
@click.option("--quiet", is_flag=True, help="No summary.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@common_options
def import_(
    labels: Path,
    embeddings: Path,
    logit_scale: float,
    logit_bias: float,
    activation: Any,
    key: str | None,
    name: str,
    model: str | None,
    revision: str | None,
    quiet: bool,
    as_json: bool,
    store: str | None,
) -> None:
    """Make an index of label EMBEDDINGS that were computed elsewhere.

    EMBEDDINGS is an .npy, .npz or .safetensors file with one (N, D) floating-point array, in the
    order of LABELS.
    """
    from zsic_index.arrays import read_array
    from zsic_index.label_index import LabelIndex

    with LabelIndex.from_embeddings(
        labels,
        read_array(embeddings, key),
        logit_scale=logit_scale,
        logit_bias=logit_bias,
        activation=activation,
        name=name,
        model=model,
        revision=revision,
        store=store,
    ) as index:
        assert index.report is not None, "an imported index has a report"
        _print_report(index.report, quiet=quiet, as_json=as_json)


@main.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@name_option
@click.option(
    "-k", "--top-k", type=click.IntRange(min=1), default=5, show_default=True, help="Labels shown."
)
@click.option(
    "-f",
    "--format",
    "format",
    type=click.Choice(outputs.FORMATS),
    default="table",
    show_default=True,
)
@click.option(
    "--label",
    "chosen",
    multiple=True,
    metavar="LABEL",
    help="Only among these labels of the index: the probabilities are over them. May be given "
    "several times.",
)
@click.option(
    "--labels",
    "chosen_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The same from a file, of the kinds that build takes.",
)
@click.option(
    "--encode-missing",
    is_flag=True,
    help="Encode chosen labels that the index does not have, and keep them for the next time.",
)
@click.option("--over-index", is_flag=True, help="Also give each probability over the whole index.")
@device_option
@common_options
def query(
    images: tuple[str, ...],
    name: str,
    top_k: int,
    format: str,
    chosen: tuple[str, ...],
    chosen_file: Path | None,
    encode_missing: bool,
    over_index: bool,
    device: str,
    store: str | None,
) -> None:
    """Classify images against an index.

    IMAGE is a file, a folder (searched with its subfolders), a glob pattern, or - for one image
    on standard input. An image that cannot be used is named on standard error, the rest go on,
    and the exit code is 3.
    """
    from zsic_index import taxonomy
    from zsic_index.label_index import LabelIndex

    labels = [*chosen, *(taxonomy.read(chosen_file).labels if chosen_file else ())]
    counts = {"done": 0, "refused": 0}
    names: list[str] = []

    def sources() -> Iterator[ImageSource]:
        for image in images:
            found = False
            for shown, source in _expand(image):
                found = True
                names.append(shown)
                yield source
            if not found:
                counts["refused"] += 1
                click.echo(f"refused: {image}: no images there", err=True)

    def results(index: LabelIndex) -> Iterator[outputs.Classified]:
        for number, result in enumerate(
            index.stream(
                sources(),
                top_k=top_k,
                labels=labels or None,
                encode_missing=encode_missing,
                over_index=over_index,
            )
        ):
            shown = names[number]
            if isinstance(result, ImageError):
                counts["refused"] += 1
                click.echo(f"refused: {_named(shown, result)}", err=True)
            else:
                counts["done"] += 1
                yield shown, result

    with LabelIndex.open(name, store=store, device=device) as index:
        outputs.write(results(index), format, sys.stdout)
    if counts["refused"]:
        total = sum(counts.values())
        click.echo(f"{total} inputs: {counts['done']} done, {counts['refused']} refused", err=True)
        sys.exit(EXIT_SOME_REFUSED)


@main.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common_options
def list_(as_json: bool, store: str | None) -> None:
    """List the indexes of a store."""
    from zsic_index.store import Store

    with Store.open(store) as opened:
        indexes = opened.indexes()
    if as_json:
        click.echo(json.dumps([_public(info) for info in indexes], ensure_ascii=False, indent=2))
        return
    outputs.write_columns(
        ["name", "labels", "dim", "model", "templates", "updated"],
        [
            [
                info.name,
                f"{info.labels:,}",
                str(info.dim),
                info.model_id or "(imported)",
                str(len(info.templates)),
                _when(info.updated_at),
            ]
            for info in indexes
        ],
        sys.stdout,
    )


@main.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common_options
def info(name: str, as_json: bool, store: str | None) -> None:
    """Show what the store knows about the index NAME."""
    from zsic_index import index
    from zsic_index.store import Store

    with Store.open(store) as opened:
        found = opened.index(name)
        location = opened.location
    values = _public(found) | {
        "store": location.shown,
        "file": str(index.path_of(location.files, found)),
    }
    if as_json:
        click.echo(json.dumps(values, ensure_ascii=False, indent=2))
        return
    values["created_at"], values["updated_at"] = _when(found.created_at), _when(found.updated_at)
    values["templates"] = "; ".join(found.templates) or "(imported)"
    width = max(map(len, values))
    for key, value in values.items():
        click.echo(f"{key:<{width}}  {'-' if value is None else value}")


@main.command()
@click.argument("name")
@click.option("--prune", is_flag=True, help="Also delete embeddings that no other index uses.")
@common_options
def rm(name: str, prune: bool, store: str | None) -> None:
    """Remove the index NAME.

    Its label embeddings stay in the store, so that building it again encodes nothing, unless
    --prune is given.
    """
    from zsic_index import index
    from zsic_index.store import Store

    with Store.open(store) as opened:
        removed = opened.remove(name, prune=prune)
        index.remove_files(opened.location.files, removed)
    click.echo(f"removed {name}: {removed.labels:,} labels")


@main.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@common_options
def verify(names: tuple[str, ...], store: str | None) -> None:
    """Check the store, and every index's file against it; NAMEs limit it to some indexes.

    A file that is missing, stale or damaged is rebuilt, and said so. Damage in the store itself
    is reported, never repaired, and the exit code is 1.
    """
    from zsic_index import builder
    from zsic_index.store import Store

    with Store.open(store) as opened:
        problems = opened.problems()
        infos = [opened.index(name) for name in names] if names else opened.indexes()
        for found in infos:
            try:
                builder.verify_rows(opened, found.name)
                rebuilt = builder.verify_file(opened, found)
            except ZsicError as error:
                problems.append(str(error))
            else:
                state = f"rebuilt ({rebuilt})" if rebuilt else "ok"
                click.echo(f"{found.name}: {found.labels:,} labels: {state}")
    for problem in problems:
        click.echo(f"problem: {problem}", err=True)
    if problems:
        raise click.ClickException(f"{len(problems)} problems found; nothing was changed")
    click.echo("store: ok")


@main.group()
def db() -> None:
    """Look after the store's database."""


@db.command()
@common_options
def upgrade(store: str | None) -> None:
    """Bring the database to this program's schema, in one transaction."""
    from zsic_index.store import Store

    before, after = Store.upgrade(store)
    if before == after:
        click.echo(f"schema {after}: nothing to do")
    else:
        click.echo(f"schema {before or '(empty)'} -> {after}")


@main.command()
@click.option(
    "-m",
    "--model",
    type=click.Choice(["builtin:clip", "builtin:siglip"]),
    default="builtin:clip",
    show_default=True,
)
@click.option(
    "--page",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    default=Path("zsic-index-demo.html"),
    show_default=True,
    help="Where to write the page with the pictures.",
)
@common_options
def demo(model: str, page: Path, store: str | None) -> None:
    """Build an index of 1,623 emoji names and classify 40 sample pictures, offline."""
    from zsic_index import demo

    with _Progress(show=True) as progress:
        result = demo.run(model, store=store, progress=progress)
    outputs.write(
        ((item.image.name, item.predictions[:1]) for item in result.items), "table", sys.stdout
    )
    page.write_text(demo.render_page(result), encoding="utf-8")
    click.echo(demo.summary(result))
    click.echo(f"Page with the pictures and their bars: {page}")
    click.echo(f"\n{demo.NEXT_STEPS}")


class _Progress:
    """A bar on a terminal, nothing elsewhere; called by the builder with (done, total)."""

    def __init__(self, *, show: bool) -> None:
        self._show = show and sys.stderr.isatty()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> _Progress:
        return self

    def __call__(self, done: int, total: int) -> None:
        if not self._show:
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

            columns = ("encoding labels", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=total)
        self._bar.update(self._task, completed=done)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _expand(image: str) -> Iterator[tuple[str, ImageSource]]:
    """Yield (name, source) for what one IMAGE argument stands for."""
    from zsic_index.images import SUFFIXES

    path = Path(image)
    if image == "-":
        yield "-", sys.stdin.buffer.read()
    elif path.is_dir():
        for child in sorted(path.rglob("*")):
            hidden = any(part.startswith(".") for part in child.relative_to(path).parts)
            if child.suffix.lower() in SUFFIXES and child.is_file() and not hidden:
                yield str(child), child
    elif not path.exists() and glob.has_magic(image):
        # Path.glob takes no absolute patterns.
        for match in sorted(glob.glob(image, recursive=True)):  # noqa: PTH207
            if Path(match).is_file():
                yield match, match
    else:
        yield image, path


def _named(shown: str, error: ImageError) -> str:
    message = " ".join(str(error).split())
    return message if message.startswith(shown) else f"{shown}: {message}"


def _warn_about(report: BuildReport, twins: tuple[tuple[str, str], ...]) -> None:
    if report.duplicates:
        _warn(f"{len(report.duplicates)} labels were given more than once", report.duplicates)
    if report.truncated:
        _warn(f"{len(report.truncated)} prompts over the token limit were cut", report.truncated)
    if twins:
        _warn(
            f"{len(twins)} pairs of labels differ only in case or Unicode form and share their "
            "probability",
            [f"{first} / {second}" for first, second in twins],
        )


def _warn(what: str, examples: Any) -> None:
    shown = ", ".join(repr(example) for example in list(examples)[:3])
    more = ", ..." if len(examples) > 3 else ""
    click.echo(f"warning: {what}: {shown}{more}", err=True)


def _print_report(report: BuildReport, *, quiet: bool, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(report), ensure_ascii=False, indent=2))
    elif not quiet:
        click.echo(
            f"{report.name}: {report.labels:,} labels, {report.encoded_labels:,} encoded "
            f"({report.encoded_prompts:,} prompts), {report.reused_labels:,} from the store, "
            f"{report.removed_labels:,} removed; {report.seconds:.1f} s"
        )


def _public(found: IndexInfo) -> dict[str, Any]:
    return asdict(found)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
