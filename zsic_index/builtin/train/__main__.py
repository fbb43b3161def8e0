"""Command line ``python -m zsic_index.builtin.train``: fetch, train, export, measure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from zsic_index import builtin
from zsic_index.builtin.train import concepts as concept_list
from zsic_index.builtin.train import drawings as drawing_cache
from zsic_index.builtin.train import npm

PACKAGE = Path(builtin.__file__).resolve().parent
"""Folder that models, samples, label list and card are written to."""

F = TypeVar("F", bound=Callable[..., Any])


def cache_option(command: F) -> F:
    """Add ``--cache``."""
    return click.option(
        "--cache",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("builtin-cache"),
        show_default=True,
        help="Folder for npm packages, rendered drawings and checkpoints.",
    )(command)


def run_options(minutes: float) -> Callable[[F], F]:
    """Add ``--minutes``, ``--samples`` and ``--further``."""

    def decorate(command: F) -> F:
        command = click.option(
            "--further",
            is_flag=True,
            help="Continue from the last checkpoint with full augmentation.",
        )(command)
        command = click.option(
            "--samples",
            type=click.IntRange(min=1),
            help="Train on this many images instead of for a number of minutes.",
        )(command)
        return click.option(
            "--minutes", type=click.FloatRange(min=0, min_open=True), default=minutes,
            show_default=True, help="Train for this long; the schedule adapts to it.",
        )(command)  # fmt: skip

    return decorate


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train the built-in models again, or measure the existing ones.

    The order is: data, clip, clip --further, siglip, evaluate. `all` runs them all.
    """


@main.command()
@cache_option
def data(cache: Path) -> None:
    """Fetch the drawings with npm, render them, write the label list."""
    npm.fetch(cache)
    concepts = concept_list.load(cache)
    drawing_cache.build(cache, concepts)
    (PACKAGE / "emoji.csv").write_text(concept_list.to_csv(concepts), encoding="utf-8")
    click.echo(f"{len(concepts)} concepts, {sum(c.trained for c in concepts)} to train on")


@main.command()
@cache_option
def samples(cache: Path) -> None:
    """Draw the sample images again."""
    from zsic_index.builtin.train import sampling

    chosen = drawing_cache.load(cache).sample
    sampling.write(cache, PACKAGE / "samples", concept_list.load(cache), chosen)


@main.command()
@cache_option
@run_options(38.0)
def clip(cache: Path, minutes: float, samples: int | None, further: bool) -> None:
    """Train the CLIP and export it."""
    from zsic_index.builtin.train import runs
    from zsic_index.builtin.train.fit import Pace

    runs.train_clip(cache, Pace(samples=samples, minutes=minutes), further=further)
    _export(cache, "clip")


@main.command()
@cache_option
@run_options(25.0)
def siglip(cache: Path, minutes: float, samples: int | None, further: bool) -> None:
    """Train the SigLIP, starting from the CLIP's vision tower, and export it."""
    from zsic_index.builtin.train import runs
    from zsic_index.builtin.train.fit import Pace

    runs.train_siglip(cache, Pace(samples=samples, minutes=minutes), further=further)
    _export(cache, "siglip")


@main.command()
@cache_option
@click.argument("kind", type=click.Choice(["clip", "siglip"]))
def export(cache: Path, kind: str) -> None:
    """Calibrate the last checkpoint and write it as a folder for transformers."""
    _export(cache, kind)


@main.command()
@cache_option
@click.option(
    "--model", "only", type=click.Choice(["clip", "siglip"]), help="Measure only this one."
)
def evaluate(cache: Path, only: str | None) -> None:
    """Measure the shipped models; write evaluation.json and MODEL_CARD.md."""
    from zsic_index.builtin.train import card, evaluation

    concepts = concept_list.load(cache)
    drawn = drawing_cache.load(cache)
    path = PACKAGE / "evaluation.json"
    figures = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for kind in (only,) if only else ("clip", "siglip"):
        click.echo(f"measuring {kind}")
        figures[kind] = evaluation.evaluate(builtin.model_path(f"builtin:{kind}"), drawn, concepts)
        figures[kind]["training"] = card.collect_training_facts(cache, kind)
    figures["data"] = card.collect_data_facts(drawn, concepts)
    figures["software"] = card.collect_versions()
    path.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (PACKAGE / "MODEL_CARD.md").write_text(card.render(figures), encoding="utf-8")
    click.echo(card.render_accuracy_table(figures))


@main.command(name="all")
@cache_option
@click.pass_context
def everything(context: click.Context, cache: Path) -> None:
    """Run all steps: data, samples, clip, clip --further, siglip, evaluate."""
    for command in (data, samples, clip):
        context.invoke(command, cache=cache)
    context.invoke(clip, cache=cache, further=True, minutes=42.0)
    for command in (siglip, evaluate):
        context.invoke(command, cache=cache)


def _export(cache: Path, kind: str) -> None:
    from zsic_index.builtin.train import calibrate, runs
    from zsic_index.builtin.train import export as exporting

    concepts = concept_list.load(cache)
    model_kind: Any = kind
    model = (runs.load_clip if kind == "clip" else runs.load_siglip)(cache, concepts)
    figures = calibrate.calibrate(cache, model_kind, model, concepts)
    (cache / f"{kind}-calibration.json").write_text(json.dumps(figures, indent=1))
    tokenizer = runs.load_tokenizer(cache, model_kind, concepts)
    exporting.export(model_kind, model, tokenizer, PACKAGE / "models" / kind)
    click.echo(f"exported {kind}: {figures}")


if __name__ == "__main__":
    main()
