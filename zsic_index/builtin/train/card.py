"""Writer of the model card, from measured figures only."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from zsic_index.builtin.train.concepts import Concept
from zsic_index.builtin.train.drawings import Drawings
from zsic_index.builtin.train.npm import PACKAGES
from zsic_index.builtin.train.sets import SETS

KINDS = {"clip": "CLIP", "siglip": "SigLIP"}
_TEXT = Path(__file__).with_name("card.md")

Figures = dict[str, Any]


def collect_training_facts(cache: Path, kind: str) -> Figures:
    """Return the reports of the training runs and of the calibration."""
    facts: Figures = json.loads((cache / f"{kind}-calibration.json").read_text(encoding="utf-8"))
    facts["runs"] = json.loads((cache / f"{kind}.json").read_text(encoding="utf-8"))
    return facts


def collect_data_facts(drawings: Drawings, concepts: list[Concept]) -> Figures:
    """Return counts of concepts and drawings."""
    training = drawings.training(concepts)
    sets = {}
    for index, item in enumerate(SETS):
        own = drawings.drawing_set == index
        sets[item.name] = {
            "drawings": int(own.sum()),
            "trained": int((own & training).sum()),
        }
    return {
        "concepts": len(concepts),
        "trained": sum(concept.trained for concept in concepts),
        "drawings": int(training.sum()),
        "barred": int(drawings.barred.sum()),
        "samples": len(drawings.sample),
        "sample_sets": sorted(set(drawings.sample.values())),
        "per_concept": float(np.bincount(drawings.concept[training]).max()),
        "sets": sets,
    }


def collect_versions() -> dict[str, str]:
    """Return the versions of the libraries that the figures were measured with."""
    names = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pillow", "resvg_py")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def render(figures: Figures) -> str:
    """Return the text of the card with figures and tables filled in."""
    present = [kind for kind in KINDS if kind in figures]
    values = {
        "concepts": f"{figures['data']['concepts']:,}",
        "trained": f"{figures['data']['trained']:,}",
        "held_out": str(figures["data"]["concepts"] - figures["data"]["trained"]),
        "drawings": f"{figures['data']['drawings']:,}",
        "barred": str(figures["data"]["barred"]),
        "samples": str(figures["data"]["samples"]),
        "sets": _sets_table(figures),
        "accuracy": render_accuracy_table(figures),
        "softmax": _softmax_table(figures, present),
        "sigmoid": _sigmoid_table(figures) if "siglip" in figures else "(not measured)",
        "training": _training_table(figures, present),
        "packages": ", ".join(f"`{name}` {number}" for name, number in PACKAGES.items()),
        "software": ", ".join(f"{name} {number}" for name, number in figures["software"].items()),
        "padding": _padding(figures),
    }
    text = _TEXT.read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def render_accuracy_table(figures: Figures) -> str:
    """Return the accuracy table: top-1 and top-5 over all labels, and 20-way, per model."""
    present = [kind for kind in KINDS if kind in figures]
    header = ["test images", "n"]
    for kind in present:
        header += [f"{KINDS[kind]} top-1", "top-5", "20-way"]
    rows = []
    for case in figures[present[0]]["cases"]:
        cells = [case, f"{figures[present[0]]['cases'][case]['images']:,}"]
        for kind in present:
            row = figures[kind]["cases"][case]
            cells += [_percent(row[key]) for key in ("top1", "top5", "way20")]
        rows.append(cells)
    return _table(header, rows)


def _softmax_table(figures: Figures, present: list[str]) -> str:
    header = ["test images"]
    for kind in present:
        header += [f"{KINDS[kind]} mean confidence", "accuracy", "ECE"]
    rows = []
    for case in figures[present[0]]["cases"]:
        cells = [case]
        for kind in present:
            row = figures[kind]["cases"][case]
            cells += [_percent(row["confidence"]), _percent(row["top1"]), f"{row['ece']:.3f}"]
        rows.append(cells)
    return _table(header, rows)


def _sigmoid_table(figures: Figures) -> str:
    cases = figures["siglip"]["cases"]
    thresholds = list(next(iter(cases.values()))["thresholds"])
    header = ["test images", "right label, mean", "median", "a wrong label, mean"]
    header += [f"≥ {threshold}: precision / recall" for threshold in thresholds]
    rows = []
    for case, row in cases.items():
        cells = [case, f"{row['right']:.3f}", f"{row['right_median']:.3f}", f"{row['wrong']:.1e}"]
        for threshold in thresholds:
            point = row["thresholds"][threshold]
            cells.append(f"{_percent(point['precision'])} / {_percent(point['recall'])}")
        rows.append(cells)
    return _table(header, rows)


def _training_table(figures: Figures, present: list[str]) -> str:
    names = {
        "parameters": "parameters",
        "samples": "images seen",
        "batch": "images per step",
        "steps": "steps",
        "rate": "peak learning rate",
        "seed": "seed",
        "threads": "CPU threads",
        "minutes": "wall time in minutes",
    }
    facts = {kind: figures[kind]["training"] for kind in present}
    rows = []
    for key, title in names.items():
        cells = [
            " + ".join(dict.fromkeys(_number(value) for value in _column(fact["runs"], key)))
            for fact in facts.values()
        ]
        rows.append([title, *cells])
    for key, title in (("scale", "logit scale"), ("bias", "logit bias")):
        cells = [
            f"{fact[f'{key}_before']:.2f} → {fact[key]:.2f}" if key in fact else ""
            for fact in facts.values()
        ]
        rows.append([f"{title}, trained → calibrated", *cells])
    return _table(["", *(KINDS[kind] for kind in present)], rows)


def _column(runs: list[Figures], key: str) -> list[Any]:
    if key == "minutes":
        return [round(run["seconds"] / 60) for run in runs]
    return [run[key] for run in runs]


def _sets_table(figures: Figures) -> str:
    rows = []
    for item in SETS:
        count = figures["data"]["sets"][item.name]
        use = "trained on" if item.role == "train" else "measured with only"
        rows.append(
            [
                f"[{item.title}]({item.url})",
                item.author,
                item.licence,
                use,
                str(count["trained"] if item.role == "train" else count["drawings"]),
            ]
        )
    return _table(["set", "author", "licence", "use", "drawings"], rows)


def _padding(figures: Figures) -> str:
    value = figures.get("clip", {}).get("padding_difference")
    return "not measured" if value is None else f"{value:.1e}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and value > 99999 else str(value)


def _table(header: list[str], rows: Iterable[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
