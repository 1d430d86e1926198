"""How charts and page look: CSS as text, light, dark and in print."""

from __future__ import annotations

from octavo.bench.report.palette import css_variables

_FONT = 'system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif'

_CHART = (
    f".chart text{{font-family:{_FONT};font-size:12px;fill:var(--ink)}}"
    ".chart .label,.chart .group{paint-order:stroke;stroke:var(--bg);stroke-width:3px;stroke-linejoin:round}"
    ".chart .dim{fill:var(--dim)}.chart .tick{fill:var(--dim);font-size:11px}"
    ".chart .group{font-weight:600}.chart .small{font-size:10.5px}"
    ".chart .heading{font-size:15px;font-weight:600}.chart .subheading{fill:var(--dim);font-size:11px}"
    ".chart line{stroke:var(--rule);stroke-width:1}.chart .axis{stroke:var(--dim)}"
    ".chart .whisker{stroke:var(--ink);stroke-width:1.3}"
    ".chart .mark{stroke:var(--ink);stroke-width:1.6;stroke-dasharray:3 2}"
    ".chart .one{stroke:var(--ink);stroke-width:1.2}"
)

_PAGE = (
    f"body{{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 {_FONT}}}"
    "main{max-width:980px;margin:0 auto;padding:24px 20px 60px}"
    "h1{font-size:26px;line-height:1.2;margin:0 0 4px}"
    "h2{font-size:20px;margin:40px 0 8px;border-top:1px solid var(--rule);padding-top:20px}"
    "h3{font-size:15px;margin:22px 0 6px}p{margin:6px 0;max-width:76ch}.dim{color:var(--dim)}"
    ".cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(215px,1fr));gap:12px;margin:14px 0}"
    ".card{background:var(--panel);border:1px solid var(--rule);border-radius:8px;padding:12px 14px;"
    "break-inside:avoid}.card b{display:block;font-size:22px;line-height:1.25}"
    ".card .better{color:var(--better)}.card .worse{color:var(--worse)}.card span{font-size:13px}"
    "figure{margin:18px 0;padding:14px;border:1px solid var(--rule);border-radius:8px;break-inside:avoid}"
    "figure svg{display:block;width:100%;height:auto;max-width:860px;margin:0 auto}"
    "figcaption{font-size:13px;color:var(--dim);margin-top:8px}"
    ".scroll{overflow-x:auto;margin:10px 0}table{border-collapse:collapse;font-size:13px;min-width:50%}"
    "th,td{text-align:left;padding:5px 12px 5px 0;border-bottom:1px solid var(--rule);vertical-align:top}"
    "th{color:var(--dim);font-weight:600}td.n{text-align:right;font-variant-numeric:tabular-nums}"
    ".warn{border-left:4px solid var(--s4);background:var(--panel);padding:8px 14px;margin:10px 0}"
    "nav a{margin-right:14px}a{color:var(--s0)}details{margin:10px 0}summary{cursor:pointer}"
    "#tip{position:fixed;pointer-events:none;background:var(--ink);color:var(--bg);padding:4px 8px;"
    "border-radius:4px;font-size:12px;max-width:320px;display:none;z-index:9;white-space:pre-line}"
    "button{font:inherit;color:var(--ink);background:var(--panel);border:1px solid var(--rule);"
    "border-radius:6px;padding:5px 12px;cursor:pointer}"
    "@media (max-width:700px){figure{padding:8px}figure svg{width:680px}figure{overflow-x:auto}}"
)
_PRINT = (
    "@media print{main{max-width:none;padding:0}button,nav,#tip{display:none!important}"
    "h2,h3{break-after:avoid}details>*{display:block}.scroll{overflow:visible}"
    "details table{font-size:6.5pt}details th,details td{padding:2px 5px 2px 0}body{font-size:11pt}"
    "*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}"
)


def page_style() -> str:
    """Of report.html. Paper is always light."""
    light, dark = css_variables("light"), css_variables("dark")
    themes = f":root{{color-scheme:light dark;{light}}}"
    themes += f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    return themes + _CHART + _PAGE + _PRINT


def figure_style() -> str:
    """Of a figure that stands alone."""
    light, dark = css_variables("light"), css_variables("dark")
    themes = (
        f"svg{{{light}background:var(--bg)}}@media screen and (prefers-color-scheme:dark){{svg{{{dark}}}}}"
    )
    return themes + _CHART
