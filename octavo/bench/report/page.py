"""report.html: one file with everything inline; opens from disk, in light and dark, and prints."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from octavo.bench.load.fairness import CONFORMANCE_HEADER, CONFORMANCE_NOTE, conformance_rows
from octavo.bench.report.figure_files import draw_panel, is_drawable
from octavo.bench.report.script import SCRIPT
from octavo.bench.report.style import page_style

_FAIRNESS = (
    ("engine", "engine"),
    ("version", "version"),
    ("weights", "weights"),
    ("compute_format", "calculated in"),
    ("kv_format", "KV format"),
    ("kv_bytes", "KV memory"),
    ("num_threads", "threads"),
    ("max_num_seqs", "largest batch"),
    ("max_num_batched_tokens", "tokens in a step"),
    ("prefix_caching", "prefix cache"),
    ("flags", "settings that differ from its defaults"),
    ("notes", "notes"),
)
# A number, perhaps with a unit, and perhaps with its range in brackets.
_NUMBER = re.compile(r"[+−-]?[\d,.]+ ?[%×]?( \([\d,.]+–[\d,.]+\))?")
# Of every run on one machine, whatever the experiment.
_THREATS = (
    "One machine, one model, generated prompts: lengths and arrivals follow the sources, texts do not.",
    "Requests of one run share queue and batch, so they are not independent: intervals are over blocks.",
    "The client runs on the same cores as the engine in process; what it takes, the engine lacks.",
    "EOS is ignored and lengths are forced, so that all targets do the same work; no real user does that.",
)


def render_report(documents: Sequence[Mapping[str, Any]]) -> str:
    """The whole page of one experiment or of several."""
    titles = [document["title"] for document in documents]
    title = titles[0] if len(titles) == 1 else "Octavo benchmarks"
    body = [f"<h1>{escape(title)}</h1>"]
    if len(documents) > 1:
        links = (f'<a href="#{one["experiment"]}">{escape(one["title"])}</a>' for one in documents)
        body.append(f"<nav>{''.join(links)}</nav>")
    for document in documents:
        body += _experiment(document, is_alone=len(documents) == 1)
    data = json.dumps(list(documents), separators=(",", ":")).replace("<", "\\u003c")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{page_style()}</style></head><body><main>{''.join(body)}</main>"
        f'<div id="tip" role="status"></div><script type="application/json" id="data">{data}</script>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _experiment(document: Mapping[str, Any], *, is_alone: bool) -> list[str]:
    name = document["experiment"]
    machine = document["machine"]
    parts = [] if is_alone else [f'<h2 id="{name}">{escape(document["title"])}</h2>']
    parts.append(
        f'<p class="dim">octavo bench run {name} --size {document["size"]}, {escape(document["date"])}, '
        f"{escape(machine['cpu'])}, {machine['num_cores']} cores</p>"
    )
    parts += [f'<p class="warn">{escape(line)}</p>' for line in document["warnings"]]
    parts.append(_cards(document))
    heading = "h2" if is_alone else "h3"
    parts += [f"<{heading}>Question</{heading}>", f"<p>{escape(document['hypothesis'])}</p>"]
    parts.append(f'<p class="dim">How: {escape(document["design"])}</p>')
    if document["predictions"]:
        parts += [
            f"<{heading}>Predicted, claimed, measured</{heading}>",
            _predictions(document["predictions"]),
        ]
    parts.append(f"<{heading}>Figures</{heading}>")
    for panel in document["panels"]:
        if is_drawable(panel):
            drawn = draw_panel(panel)
            parts.append(
                f'<figure id="{name}-{escape(panel["name"])}" data-kind="{panel["kind"]}">{drawn}</figure>'
            )
    for table in document["tables"]:
        parts += [f"<h3>{escape(table['title'])}</h3>", _table(table["header"], table["rows"])]
        parts += [f'<p class="dim">{escape(note)}</p>' for note in table["notes"]]
    parts += _conditions(document, heading)
    return parts


def _cards(document: Mapping[str, Any]) -> str:
    cards = []
    for one in document["comparisons"][:12]:
        kind = {"better": "better", "worse": "worse"}.get(one["verdict"], "")
        interval = "no interval" if one["low"] is None else f"{one['low']:.2f} to {one['high']:.2f}"
        group = f", {one['group']}" if one["group"] else ""
        cards.append(
            f'<div class="card"><span>{escape(one["label"])}{escape(group)}</span>'
            f'<b class="{kind}">{one["ratio"]:.2f}×</b>'
            f"<span>{escape(one['of'])} against {escape(one['against'])}: {escape(one['verdict'])}"
            f'<br><span class="dim">{interval}, {one["num_blocks"]} blocks</span></span></div>'
        )
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""


def _predictions(rows: Iterable[Mapping[str, Any]]) -> str:
    cells = [
        [
            one["quantity"],
            one["predicted"],
            f"{one['claimed']} ({one['source']})" if one["source"] else one["claimed"],
            one["measured"],
            one["remark"],
        ]
        for one in rows
    ]
    return _table(("", "predicted", "claimed", "measured", "remark"), cells)


def _conditions(document: Mapping[str, Any], heading: str) -> list[str]:
    """Fairness, distributions, threats, environment, raw data."""
    parts = []
    if document["targets"]:
        parts += [f"<{heading}>Fairness</{heading}>", _fairness(document["targets"])]
    same_work = conformance_rows(document.get("conformance", {}), document.get("failures", {}))
    if same_work:
        parts.append(f"<{heading}>Do they do the same work?</{heading}>")
        parts.append(_table(CONFORMANCE_HEADER, same_work, aligns_numbers=False))
        parts.append(f'<p class="dim">{escape(CONFORMANCE_NOTE)}</p>')
    if document["distributions"]:
        parts.append("<details><summary>Latencies in numbers</summary>")
        parts += [_distributions(document["distributions"]), "</details>"]
    threats = [*document["threats"], *_THREATS]
    parts.append(f"<{heading}>Threats to validity</{heading}>")
    parts.append("<ul>" + "".join(f"<li>{escape(line)}</li>" for line in threats) + "</ul>")
    parts.append(f"<{heading}>Environment</{heading}>")
    facts = [[name.replace("_", " "), _shown(value)] for name, value in document["machine"].items()]
    load = document.get("load_average")
    if load:
        facts.append(
            ["load average", f"{load['before'][0]:.2f} before, {load['after'][0]:.2f} after, own included"]
        )
    facts.append(
        [
            "blocks",
            f"{document['extent']['num_blocks']} kept, {document['extent']['num_discarded']} to warm up",
        ]
    )
    parts.append(_table(("", ""), facts, aligns_numbers=False))
    if document["measures"]:
        parts.append("<details><summary>Measures, block by block</summary>")
        parts += [_measures(document), "</details>"]
    parts.append('<p><button type="button" class="save">Save the raw data as JSON</button></p>')
    return parts


def _fairness(targets: Sequence[Mapping[str, Any]]) -> str:
    header = ["", *(one["name"] for one in targets)]
    rows = [
        [label, *(_bytes(one[key]) if key == "kv_bytes" else _shown(one[key]) for one in targets)]
        for key, label in _FAIRNESS
    ]
    return _table(header, rows, aligns_numbers=False)


def _distributions(rows: Iterable[Mapping[str, Any]]) -> str:
    header = (
        *("condition", "target", "", "n", "mean", "median", "mode", "sd", "variance", "range", "IQR", "skew"),
        *("p90", "p95", "p99"),
    )
    return _table(header, [_distribution_cells(one) for one in rows])


def _distribution_cells(one: Mapping[str, Any]) -> list[str]:
    plain = [one[name] for name in ("mean", "median", "mode", "sd", "variance", "range", "iqr", "skew")]
    cells = [one["condition"], one["target"], one["field"], f"{one['n']}"]
    cells += ["–" if value is None else f"{value:.4g}" for value in plain]
    for name in ("p90", "p95", "p99"):
        found = one[name]
        if found["value"] is None:
            cells.append(f"needs n ≥ {found['needs']}")
        else:
            cells.append(f"{found['value']:.4g} [{found['low']:.4g}, {found['high']:.4g}]")
    return cells


def _measures(document: Mapping[str, Any]) -> str:
    metrics = document["metrics"]
    rows = [
        [
            one["condition"],
            one["target"],
            metrics[one["metric"]]["label"],
            metrics[one["metric"]]["unit"],
            ", ".join(f"{value:.4g}" for value in one["values"]),
        ]
        for one in document["measures"]
    ]
    return _table(("condition", "target", "metric", "unit", "blocks"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], *, aligns_numbers: bool = True) -> str:
    def row_of(cells: Sequence[str]) -> str:
        classes = (_number_class(cell) if aligns_numbers else "" for cell in cells)
        inside = (f"<td{name}>{escape(cell)}</td>" for name, cell in zip(classes, cells, strict=True))
        return f"<tr>{''.join(inside)}</tr>"

    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(map(row_of, rows))
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _number_class(cell: str) -> str:
    """Numbers stand at the right."""
    return ' class="n"' if _NUMBER.fullmatch(cell) else ""


def _shown(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _bytes(value: int | None) -> str:
    return "unknown" if value is None else f"{value / 2**20:,.0f} MiB"
