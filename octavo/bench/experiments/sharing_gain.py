"""What forks, beams and cached prefixes save: the paper's figures 14 to 16, by the pager's benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from octavo.bench import paper
from octavo.bench.experiments.experiment import Condition, Findings, Prediction, Setup, Table
from octavo.bench.experiments.panels import plain_bars, series_colour
from octavo.bench.experiments.results import Results
from octavo.bench.prefix import run_prefix
from octavo.bench.prefix_spec import PrefixSpec
from octavo.bench.sharing import run_sharing
from octavo.bench.sharing_spec import METHODS, SharingSpec
from octavo.bench.statistics.verdict import compare

_SHARING = {
    "smoke": SharingSpec(data_sets=("alpaca",), widths=(2, 4), num_requests=2, num_step_pairs=4),
    "ci": SharingSpec(data_sets=("alpaca",), num_requests=4, num_step_pairs=24),
    "full": SharingSpec(num_requests=12),
    "paper": SharingSpec(num_requests=48),
}
_PREFIX = {
    "smoke": PrefixSpec(num_requests=4, mean_input=8, mean_output=6, repeats=2),
    "ci": PrefixSpec(num_requests=8, mean_output=16, repeats=3),
    "full": PrefixSpec(repeats=6),
    "paper": PrefixSpec(num_requests=48, repeats=8),
}


class Sharing:
    name = "sharing"
    title = "What sharing saves"
    hypothesis = (
        "Samples of one prompt share its blocks, beams share all that they have in common, and prompts that "
        "begin alike need their beginning computed once. The longer the shared part, the more is saved."
    )
    design = (
        "Parallel samples and beams of widths 2, 4 and 6 on lengths of the paper's data sets: blocks saved "
        "by sharing over blocks needed without it. Then prompts with a common prefix of 80 and 341 tokens "
        "on two engines in turns, prefix caching on and off."
    )
    needs_octavo = True

    def phases(self, setup: Setup) -> Sequence[Callable[[Results], list[Condition]]]:
        return ()

    def calculate(self, setup: Setup) -> dict[str, Any]:
        sharing = run_sharing(setup.config, replace(_SHARING[setup.size], seed=setup.seed))
        prefix = run_prefix(setup.config, replace(_PREFIX[setup.size], seed=setup.seed))
        return {"sharing": sharing.as_json(), "prefix": prefix.as_json()}

    def conclude(self, setup: Setup, results: Results) -> Findings:
        sharing, prefix = results.calculated["sharing"], results.calculated["prefix"]
        data_sets = dict.fromkeys(one["data_set"] for one in sharing["savings"])
        return Findings(
            predictions=_predict(sharing, prefix),
            panels=[*(_savings(sharing, name) for name in data_sets), _speedups(prefix)],
            comparisons=[_comparison(case) for case in prefix["cases"]],
            tables=[_table(sharing)],
            threats=[sharing["what_differs"], prefix["what_differs"]],
        )


def _savings(sharing: Mapping[str, Any], data_set: str) -> dict[str, Any]:
    found = [one for one in sharing["savings"] if one["data_set"] == data_set]
    widths = list(dict.fromkeys(one["width"] for one in found))
    series = [
        {
            "label": {"parallel": "samples", "beam": "beams"}[method],
            "colour": series_colour(index),
            "bars": [
                {
                    "value": one["saving_percent"],
                    "low": None,
                    "high": None,
                    "n": len(one["by_request_percent"]),
                }
                for width in widths
                for one in found
                if (one["method"], one["width"]) == (method, width)
            ],
        }
        for index, method in enumerate(METHODS)
    ]
    marks = [
        {
            "group": f"width {one['width']}",
            "value": float(one["paper_percent"]),
            "label": f"paper, {one['method']}: {one['paper_percent']} %",
        }
        for one in found
        if one["paper_percent"] and one["paper_percent"].replace(".", "").isdigit()
    ]
    return plain_bars(
        name=f"savings-{data_set}",
        title=f"KV blocks saved by sharing, {data_set} lengths",
        subtitle=f"mean of all steps; marks: {paper.CITATION}, figure 15",
        axis="blocks saved",
        unit="%",
        groups=[f"width {width}" for width in widths],
        series=series,
        marks=marks,
    )


def _speedups(prefix: Mapping[str, Any]) -> dict[str, Any]:
    cases = prefix["cases"]
    groups = [f"prefix of {case['num_prefix_tokens']} tokens" for case in cases]
    series = [
        {
            "label": label,
            "colour": series_colour(index),
            "bars": [
                {
                    "value": case[key]["mean"],
                    "low": case[key]["low"],
                    "high": case[key]["high"],
                    "n": case[key]["num_pairs"],
                }
                if case[key]["num_pairs"] > 2
                else {"value": case[key]["mean"], "low": None, "high": None, "n": case[key]["num_pairs"]}
                for case in cases
            ],
        }
        for index, (key, label) in enumerate(
            (("throughput_speedup", "throughput"), ("median_ttft_speedup", "median TTFT"))
        )
    ]
    return plain_bars(
        name="prefix",
        title="Gain of a cached prefix, caching on over off",
        subtitle=f"geometric mean of pairs, 95 % intervals from 3 pairs; marks: {paper.CITATION}, figure 16, "
        "over Orca (Oracle)",
        axis="on over off",
        unit="×",
        groups=groups,
        series=series,
        marks=[
            {"group": group, "value": printed, "label": f"paper: {printed}×"}
            for group, case in zip(groups, cases, strict=True)
            if (printed := case["paper_speedup_over_orca_oracle"]) is not None
        ],
    )


def _comparison(case: Mapping[str, Any]) -> dict[str, Any]:
    on, off = ([one["output_tokens_per_second"] for one in case[key]] for key in ("on", "off"))
    found = compare(on, off, higher_is_better=True)
    return {
        "metric": "tok_out_s",
        "label": "output tokens/s",
        "of": "prefix cache on",
        "against": "off",
        "group": f"prefix of {case['num_prefix_tokens']}",
        **{name: getattr(found, name) for name in found.__dataclass_fields__},
    }


def _predict(sharing: Mapping[str, Any], prefix: Mapping[str, Any]) -> list[Prediction]:
    rows = [
        Prediction(
            quantity=f"blocks saved, {one['data_set']}, {one['method']}, width {one['width']}",
            claimed=f"{one['paper_percent']} %" if one["paper_percent"] else "–",
            source=f"{paper.CITATION}, figure 15" if one["paper_percent"] else "",
            measured=f"{one['saving_percent']:.1f} %",
        )
        for one in sharing["savings"]
    ]
    rows += [
        Prediction(
            quantity=f"throughput, prefix of {case['num_prefix_tokens']} tokens, cache on over off",
            predicted="above 1, more with the longer prefix",
            claimed=f"{case['paper_speedup_over_orca_oracle']}× over Orca (Oracle)",
            source=f"{paper.CITATION}, figure 16",
            measured=f"{case['throughput_speedup']['mean']:.2f}×",
            remark="another baseline: here the same engine without its cache",
        )
        for case in prefix["cases"]
    ]
    return rows


def _table(sharing: Mapping[str, Any]) -> Table:
    step = sharing["beam_step"]
    rows = [
        [
            f"{one['data_set']}, {one['method']}, width {one['width']}",
            f"{one['saving_percent']:.1f} %",
            f"{one['paper_percent']} %" if one["paper_percent"] else "–",
        ]
        for one in sharing["savings"]
    ]
    return Table(
        title="KV blocks saved by sharing",
        header=("", "saved", "the paper"),
        rows=rows,
        notes=(
            f"A step of {step['width']} beams takes {step['median_ratio']:.3f} times a step of as many "
            f"ordinary sequences ({step['num_pairs']} pairs; the goal is at most {step['goal']}).",
        ),
    )
