"""An evaluation as one HTML page, complete in itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from zsic_index.calibration.reliability import Reliability
from zsic_index.evaluation import diagram
from zsic_index.evaluation.metrics import Figure
from zsic_index.evaluation.record import (
    Evaluation,
    TemplateSet,
    WorstImage,
)
from zsic_index.formats.html import document
from zsic_index.formats.text import percent


def render_page(evaluation: Evaluation) -> str:
    """Return the page. Whatever comes from outside is escaped; nothing is loaded from anywhere."""
    sections = (
        _headline(evaluation),
        _ranks(evaluation),
        _reliability(evaluation),
        _template_sets(evaluation.template_sets),
        _confusions(evaluation),
        _worst(evaluation.worst),
        _counts(evaluation),
    )
    model = evaluation.model or "imported embeddings"
    body = f"""<header>
<h1>Evaluation of {escape(evaluation.index)} <small>{escape(model)}</small></h1>
<p>{evaluation.counts.evaluated:,} images of <code>{escape(evaluation.source)}</code> over \
{evaluation.labels:,} labels, {escape(evaluation.date)}. Intervals are 95 % bootstrap intervals \
over the images.</p>
</header>
<main>
{"".join(sections)}</main>"""
    return document(f"zsic-index evaluation: {evaluation.index}", _STYLE, body)


def _section(title: str, content: str) -> str:
    ident = "-".join(title.lower().split())
    return (
        f'<section aria-labelledby="{ident}">\n<h2 id="{ident}">{title}</h2>\n{content}\n'
        "</section>\n"
    )


def _headline(evaluation: Evaluation) -> str:
    cards = [
        _card("Right label first", evaluation.top1),
        _card("Among the first five", evaluation.top5),
    ]
    if evaluation.calibrated_top1 is not None and evaluation.calibrated_top5 is not None:
        cards += [
            _card("Right label first, calibrated", evaluation.calibrated_top1),
            _card("Among the first five, calibrated", evaluation.calibrated_top5),
        ]
    calibration = evaluation.calibration
    final = calibration.after or calibration.before
    note = f"{percent(calibration.before.error)} before" if calibration.after else "not calibrated"
    cards.append(_plain_card("Calibration error", percent(final.error), note))
    if (coverage := evaluation.coverage) is not None:
        size = f"{coverage.mean_size:,.1f} labels per set, median {coverage.median_size:,g}"
        name = f"Coverage of {coverage.wanted * 100:g} % sets"
        cards.append(_card(name, coverage.found, size))
    if (many := evaluation.multi_label) is not None:
        note = f"over {many.f1.labels:,} labels"
        cards += [
            _plain_card("Mean average precision", percent(many.mean_average_precision), note),
            _plain_card(
                "F1 over all pairs", percent(many.f1.micro), f"threshold {many.thresholds}"
            ),
            _plain_card("F1, mean of labels", percent(many.f1.macro), note),
        ]
    return _section("Headline", f'<div class="cards">{"".join(cards)}</div>')


def _card(name: str, figure: Figure, note: str = "") -> str:
    interval = f"{percent(figure.low)} to {percent(figure.high)}"
    more = f"<small>{escape(note)}</small>" if note else ""
    return f"""<div class="card"><p>{escape(name)}</p><b>{percent(figure.value)}</b>
{_interval(figure)}<small>{interval}</small>{more}</div>
"""


def _plain_card(name: str, value: str, note: str) -> str:
    return f"""<div class="card"><p>{escape(name)}</p><b>{value}</b>
<small>{escape(note)}</small></div>
"""


def _interval(figure: Figure) -> str:
    """Draw a value and its interval on a line from 0 to 100 %; the numbers stand beside it."""
    low, high = figure.low * 100, figure.high * 100
    return (
        '<svg class="interval" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="all" y="2" width="100" height="2"/>'
        f'<rect class="range" x="{low:.2f}" width="{max(high - low, 0.6):.2f}" height="6"/></svg>'
    )


def _ranks(evaluation: Evaluation) -> str:
    if not evaluation.ranks:
        return ""
    rows = [
        [
            escape(one.rank),
            percent(one.accuracy.value),
            f"{_interval(one.accuracy)}<small>{percent(one.accuracy.low)} to "
            f"{percent(one.accuracy.high)}</small>",
            f"{one.nodes:,}",
            f"{one.accuracy.images:,}",
        ]
        for one in evaluation.ranks
    ]
    header = ("Rank", "Right", "Interval", "Nodes", "Images")
    return _section("Ranks", _table("Accuracy per rank", header, rows, numbers=(1, 3, 4)))


def _reliability(evaluation: Evaluation) -> str:
    calibration = evaluation.calibration
    shown = [
        ("before calibration" if calibration.after else "without calibration", calibration.before)
    ]
    if calibration.after:
        shown.append(("after calibration", calibration.after))
    figures = "".join(_reliability_figure(name, found) for name, found in shown)
    note = f"<p>{escape(calibration.note)}</p>" if calibration.note else ""
    answers = (
        "the most probable label of each image"
        if calibration.shown == 1
        else f"the {calibration.shown:,} most probable labels of each image"
    )
    explained = (
        f"<p>How often answers come true, by their probability; answers are {answers}. On the "
        "line, probabilities say what happens. Red is claimed but not right, pale is right but not "
        "claimed.</p>"
    )
    return _section("Reliability", f'{explained}{note}<div class="diagrams">{figures}</div>')


def _reliability_figure(name: str, found: Reliability) -> str:
    rows = [
        [
            f"{percent(one.low)} to {percent(one.high)}",
            f"{one.answers:,}",
            percent(one.probability),
            percent(one.accuracy),
        ]
        for one in found.bins
    ]
    header = ("Bin", "Answers", "Probability", "Right")
    table = _table(f"Reliability {name}, in numbers", header, rows, numbers=(1, 2, 3))
    return f"""<figure>{diagram.draw(found, name)}
<figcaption>{name.capitalize()}: expected calibration error \
{percent(found.error)}</figcaption>
<details><summary>The numbers</summary>{table}</details></figure>"""


def _template_sets(sets: Sequence[TemplateSet]) -> str:
    if not sets:
        return ""
    best = max(one.top1.value for one in sets)
    rows = [
        [
            f'{escape(one.name)}<small class="templates">{_templates(one.templates)}</small>',
            f"<b>{percent(one.top1.value)}</b>"
            if one.top1.value == best
            else percent(one.top1.value),
            f"{_interval(one.top1)}<small>{percent(one.top1.low)} to "
            f"{percent(one.top1.high)}</small>",
            percent(one.top5.value),
            percent(one.ece),
        ]
        for one in sets
    ]
    header = ("Template set", "First", "Interval", "Among five", "Calibration error")
    table = _table("Template sets on the same images", header, rows, numbers=(1, 3, 4))
    return _section("Template sets", table)


def _templates(templates: Sequence[str]) -> str:
    more = f", and {len(templates) - 1:,} more" if len(templates) > 1 else ""
    return escape(templates[0]) + more if templates else ""


def _confusions(evaluation: Evaluation) -> str:
    if not evaluation.confusions:
        return ""
    most = max(one.images for one in evaluation.confusions)
    rows = [
        [
            f'<span class="right">{escape(one.true)}</span>',
            f'<span class="wrong">{escape(one.predicted)}</span>',
            f"{one.images:,}",
            f'<span class="track"><i class="bar" style="width:{one.images / most:.1%}"></i></span>',
        ]
        for one in evaluation.confusions
    ]
    header = ("Right label", "Taken for", "Images", "")
    table = _table("Pairs that are most often confused", header, rows, numbers=(2,))
    return _section("Confusions", table)


def _worst(images: Sequence[WorstImage]) -> str:
    if not images:
        return ""
    cards = "\n".join(_worst_card(image) for image in images)
    return _section("Worst images", f'<div class="images">{cards}</div>')


def _worst_card(image: WorstImage) -> str:
    right = ", ".join(image.true)
    picture = (
        f'<img alt="{escape(right)}" src="{escape(image.thumbnail)}" loading="lazy">'
        if image.thumbnail
        else '<div class="none">no picture</div>'
    )
    return f"""<figure>{picture}
<figcaption>{escape(image.name)}</figcaption>
<p class="wrong"><span><span class="sign">said</span> {escape(image.predicted)}</span>\
<b>{percent(image.probability)}</b></p>
<p class="right"><span><span class="sign">is</span> {escape(right)}</span>\
<b>{percent(image.true_probability)}</b></p></figure>"""


def _counts(evaluation: Evaluation) -> str:
    counts = evaluation.counts
    rows = [
        ["Evaluated", f"{counts.evaluated:,}"],
        ["Rows that name an image again", f"{counts.repeated:,}"],
        ["No such file", f"{counts.missing:,}"],
        ["Without a label", f"{counts.unlabelled:,}"],
        ["No images", f"{counts.ignored:,}"],
        ["Images that cannot be read", f"{counts.refused:,}"],
        ["Labels that the index does not have", f"{counts.unknown:,}"],
        ["<b>Given</b>", f"<b>{counts.given:,}</b>"],
    ]
    kept = [row for row in rows if row[1] != "0"]
    return _section("Counts", _table("What became of what was given", ("", ""), kept, numbers=(1,)))


def _table(
    caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int]
) -> str:
    """Return a table that scrolls sideways, also by keyboard, where it is too wide.

    Args:
        caption: what it shows; escaped.
        header: names of the columns, escaped; no head where all are empty.
        rows: cells as HTML.
        numbers: columns that are set to the right.
    """
    kinds = ['class="number"' if at in numbers else "" for at in range(len(header))]
    head = "".join(
        f'<th scope="col" {kind}>{escape(name)}</th>' if name else "<td></td>"
        for kind, name in zip(kinds, header, strict=True)
    )
    lines = "\n".join(
        "<tr>"
        + f'<th scope="row">{row[0]}</th>'
        + "".join(f"<td {kind}>{cell}</td>" for kind, cell in zip(kinds[1:], row[1:], strict=True))
        + "</tr>"
        for row in rows
    )
    thead = f"<thead><tr>{head}</tr></thead>\n" if any(header) else ""
    return f"""<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">
<table><caption>{escape(caption)}</caption>
{thead}<tbody>
{lines}
</tbody></table></div>"""


_STYLE = """
h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
code { overflow-wrap: anywhere; }
.cards { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); }
.card { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .75rem; }
.card p { font-size: .85rem; margin: 0; opacity: .8; }
.card b { display: block; font-size: 1.6rem; font-variant-numeric: tabular-nums; line-height: 1.3; }
small { display: block; font-size: .8rem; opacity: .8; white-space: nowrap; }
.card small, small.templates { white-space: normal; }
.interval { display: block; height: 6px; margin: .2rem 0; min-width: 4rem; width: 100%; }
.interval .all { fill: var(--line); } .interval .range { fill: var(--bar); }
.scroll { overflow-x: auto; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--bar); outline-offset: 2px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
caption { font-size: .85rem; opacity: .8; padding-bottom: .3rem; text-align: left; }
th, td { border-top: 1px solid var(--line); padding: .3rem .9rem .3rem 0; text-align: left; }
thead th, thead td { border-top: 0; font-size: .85rem; font-weight: 600; }
[aria-labelledby=counts] table, details table { width: auto; }
tbody th { font-weight: 400; overflow-wrap: break-word; }
.number { text-align: right; white-space: nowrap; }
.diagrams { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 30rem)); }
.diagrams svg { display: block; width: 100%; }
svg text { fill: currentColor; font-size: 10px; opacity: .8; }
.grid { fill: none; stroke: var(--line); }
.accuracy { fill: var(--bar); } .above { fill: var(--bar); opacity: .5; }
.below { fill: var(--wrong); opacity: .4; }
.answers { fill: var(--bar); opacity: .6; }
.ideal { fill: none; stroke: currentColor; stroke-dasharray: 4 3; }
.track { display: block; min-width: 4rem; }
.bar { background: var(--bar); border-radius: 2px; display: block; height: 6px; min-width: 2px; }
.right { color: var(--right); } .wrong { color: var(--wrong); }
.images { display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 13rem), 1fr)); }
figcaption { overflow-wrap: anywhere; text-wrap: balance; }
.images p { display: grid; gap: .5rem; grid-template-columns: 1fr auto; margin: 0; }
.images p > span { overflow-wrap: anywhere; }
.images b { font-variant-numeric: tabular-nums; font-weight: 400; }
.images .none { align-items: center; display: flex; height: 9rem; justify-content: center;
  opacity: .6; }
.sign { font-size: .8rem; }
@media (max-width: 30rem) {
  th, td { padding-right: .5rem; } td small { white-space: normal; }
}
"""
