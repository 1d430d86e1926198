"""`octavo bench diff` and `report`: regressions beyond interval and 3 %, and nothing else."""

from __future__ import annotations

import json

import pytest

from octavo.bench.report.difference import compare_documents
from octavo.cli.main import main
from octavo.errors import ConfigError
from tests.bench.report.panels import make_panel


def document(values: list[float], metric: str = "tok_out_s", *, seed: int = 0) -> dict:
    better = metric == "tok_out_s"
    return {
        "schema_version": 1,
        "experiment": "table",
        "title": "A table",
        "size": "smoke",
        "date": "2026-01-01",
        "hypothesis": "one",
        "design": "two",
        "settings": {"experiment": "table", "size": "smoke", "seed": seed},
        "extent": {"num_blocks": 5, "num_discarded": 1},
        "machine": {"cpu": "a processor", "num_cores": 2},
        "metrics": {metric: {"label": metric, "unit": "", "higher_is_better": better}},
        "measures": [
            {
                "condition": "c",
                "target": "octavo",
                "metric": metric,
                "blocks": [1, 2, 3, 4, 5],
                "values": values,
            }
        ],
        **{name: [] for name in ("warnings", "comparisons", "predictions", "tables", "targets", "threats")},
        "distributions": [],
        "panels": [make_panel("bars", 2)],
    }


BEFORE = [100.0, 104.0, 98.0, 101.0, 99.0]


@pytest.mark.parametrize(
    ("metric", "factor", "is_regression"),
    [
        ("tok_out_s", 0.9, True),
        ("tok_out_s", 1.1, False),
        ("tok_out_s", 0.98, False),
        ("e2e_ms_p50", 1.1, True),
        ("e2e_ms_p50", 0.9, False),
    ],
)
def test_worse_beyond_the_interval_and_three_percent_is_a_regression(metric, factor, is_regression):
    after = [value * factor for value in BEFORE]
    (found,) = compare_documents(document(BEFORE, metric), document(after, metric))
    assert found.found.ratio == pytest.approx(factor)
    assert found.is_regression is is_regression


def test_a_noisy_fall_is_none():
    (found,) = compare_documents(document(BEFORE), document([60.0, 140.0, 70.0, 110.0, 80.0]))
    assert found.found.ratio < 0.95
    assert not found.is_regression


def test_what_is_not_the_same_work_is_refused():
    with pytest.raises(ConfigError, match="seed"):
        compare_documents(document(BEFORE), document(BEFORE, seed=1))
    with pytest.raises(ConfigError, match="no measure in common"):
        compare_documents(document(BEFORE), document(BEFORE, "e2e_ms_p50"))


def test_the_commands_exit_codes_and_the_report_of_several(tmp_path, capsys):
    for name, values in (("old", BEFORE), ("new", [value * 0.8 for value in BEFORE])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(document(values)))
    assert main(["bench", "diff", str(tmp_path / "old"), str(tmp_path / "new")]) == 1
    assert "1 regressions in 1" in capsys.readouterr().out
    assert main(["bench", "diff", str(tmp_path / "new"), str(tmp_path / "old")]) == 0
    assert main(["bench", "report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert page.count("<figure") == 2
    assert main(["bench", "report", str(tmp_path / "nowhere")]) == 2
    (tmp_path / "old" / "results.json").write_text("{")
    assert main(["bench", "report", str(tmp_path / "old")]) == 2
    assert "Traceback" not in capsys.readouterr().err
