"""Where the KV memory goes, beside the vLLM paper's figures 2 and 13, by the pager's own benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from octavo.bench import paper
from octavo.bench.block_history import BlockHistory, parse_block_map
from octavo.bench.blocks import record_blocks
from octavo.bench.blocks_spec import BlocksSpec
from octavo.bench.experiments.experiment import Condition, Findings, Prediction, Setup, Table
from octavo.bench.experiments.results import Results
from octavo.bench.memory import run_memory
from octavo.bench.memory_spec import MemorySpec

_SPECS = {
    "smoke": MemorySpec(num_requests=60, num_slots=8_192, block_sizes=(16,)),
    "ci": MemorySpec(num_requests=200, block_sizes=(8, 16, 32)),
    "full": MemorySpec(num_requests=600, block_sizes=(1, 8, 16, 32, 64, 128, 256)),
    "paper": MemorySpec(num_requests=2_000, block_sizes=(1, 8, 16, 32, 64, 128, 256)),
}
_PAPER_NAMES = {"max": "Orca (Max)", "pow2": "Orca (Pow2)", "oracle": "Orca (Oracle)", "paged-16": "vLLM"}
_BATCHES = {"max": "OrcaMax", "pow2": "OrcaPow2", "oracle": "OrcaOracle", "paged-16": "vLLM"}
_TITLES = {
    "max": "reserve the maximum",
    "pow2": "reserve a power of two",
    "oracle": "reserve the exact length",
}
_CATEGORIES = (
    ("states", "token states", "token_states"),
    ("reserved", "reserved for later", "reservation"),
    ("internal", "internal fragmentation", "internal_frag"),
    ("external", "external, others", "external_frag_other"),
    ("free", "free", ""),
)
_BLOCK_KV_BYTES = 24 * 2**20
_MOST_COLUMNS = 160


class MemoryWaste:
    name = "memory-waste"
    title = "Where the KV memory goes"
    hypothesis = (
        "A contiguous reservation for the longest possible output leaves most of the memory empty; blocks "
        "leave at most the last one of each sequence half filled, so nearly all of the memory holds tokens "
        "and more requests run at once."
    )
    design = (
        "One trace of ShareGPT's mean lengths through contiguous reservations (a buddy allocator) and "
        "through the real pager, the same KV memory, all requests waiting. Nothing is computed. The block "
        "map is of a small run of the model itself."
    )
    needs_octavo = True

    def phases(self, setup: Setup) -> Sequence[Callable[[Results], list[Condition]]]:
        return ()

    def calculate(self, setup: Setup) -> dict[str, Any]:
        report = run_memory(replace(_SPECS[setup.size], seed=setup.seed))
        cache = replace(setup.config.cache, kv_cache_memory=_BLOCK_KV_BYTES)
        history = record_blocks(
            replace(setup.config, cache=cache), BlocksSpec(num_requests=16, mean_output=24, seed=setup.seed)
        )
        return {
            "measured": [one.as_json() for one in report.uses],
            "trace": report.trace.about,
            "num_slots": report.spec.num_slots,
            "num_requests": report.spec.num_requests,
            "block_maps": [asdict(one) for one in _thin(history)],
        }

    def conclude(self, setup: Setup, results: Results) -> Findings:
        found = results.calculated
        return Findings(
            predictions=_predict(found),
            panels=[_shares(found), _batches(found), _block_map(found)],
            tables=[_table(found)],
            threats=[
                "The contiguous systems are simulated, under the real scheduler's rules; the paper's are "
                "re-implementations of Orca by its authors.",
                "Only mean lengths of the paper's data sets are printed: the shape of the distribution is "
                "assumed to be exponential.",
            ],
        )


def _thin(history: BlockHistory) -> list[Any]:
    every = max(1, -(-len(history.maps) // _MOST_COLUMNS))
    return history.maps[::every]


def _title(name: str) -> str:
    return _TITLES.get(name) or f"paged, blocks of {name.partition('-')[2]}"


def _shares(found: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for use in found["measured"]:
        rows.append(
            {
                "label": _title(use["name"]),
                "shares": [use[f"{name}_percent"] for name, _, _ in _CATEGORIES],
                "note": f"{use['mean_running']:.1f} at once",
                "is_claim": False,
            }
        )
        printed = paper.kv_usage_percent().get(_PAPER_NAMES.get(use["name"], ""))
        if printed is not None:
            shares = [printed.get(key, 0.0) for _, _, key in _CATEGORIES]
            shares[-1] = printed.get("other", 0.0)
            label = f"paper: {_PAPER_NAMES[use['name']]}"
            rows.append({"label": label, "shares": shares, "note": "", "is_claim": True})
    return {
        "kind": "stacked",
        "name": "shares",
        "title": "What the KV memory holds",
        "subtitle": f"{found['num_requests']} requests, {found['trace']}, {found['num_slots']:,} slots; mean "
        "of the steps in which requests wait for memory. The paper's vLLM: what holds no token in one number",
        "axis": "% of the KV memory",
        "categories": [{"label": label, "colour": f"category:{name}"} for name, label, _ in _CATEGORIES],
        "rows": rows,
    }


def _batches(found: Mapping[str, Any]) -> dict[str, Any]:
    printed = paper.mean_batches("ShareGPT")
    groups = [_title(use["name"]) for use in found["measured"]]
    bars = [{"value": use["mean_running"], "low": None, "high": None, "n": 0} for use in found["measured"]]
    return {
        "kind": "bars",
        "name": "batch",
        "title": "Requests that run at once",
        "subtitle": f"mean of the same steps; marks: {paper.CITATION}, figure 13",
        "axis": "requests at once",
        "unit": "",
        "groups": groups,
        "series": [{"label": "requests", "colour": "series:0", "bars": bars}],
        "marks": [
            {"group": _title(name), "value": printed[key], "label": f"paper: {printed[key]}"}
            for name, key in _BATCHES.items()
            if _title(name) in groups
        ],
    }


def _block_map(found: Mapping[str, Any]) -> dict[str, Any]:
    history = BlockHistory([parse_block_map(one) for one in found["block_maps"]])
    return {
        "kind": "heat-map",
        "name": "block-map",
        "title": "Which KV block is used, shared, cached or free",
        "subtitle": f"{history.num_blocks:,} blocks of {history.block_size} tokens, "
        f"{history.num_untouched:,} never taken and not shown; 16 requests with a common prefix",
        "y_axis": "block",
        "steps": history.step_ids,
        "grid": history.states(),
        "states": [
            {"label": name, "colour": f"block:{name}"} for name in ("free", "cached", "used", "shared")
        ],
    }


def _predict(found: Mapping[str, Any]) -> list[Prediction]:
    rows = []
    for use in found["measured"]:
        printed = paper.kv_usage_percent().get(_PAPER_NAMES.get(use["name"], ""))
        if printed is None:
            continue
        rows.append(
            Prediction(
                quantity=f"KV memory that holds tokens, {_title(use['name'])}",
                predicted="above 96 %" if use["name"] == "paged-16" else "–",
                claimed=f"{printed['token_states']} %",
                source=f"{paper.CITATION}, figure 2",
                measured=f"{use['states_percent']:.1f} %",
                remark=f"waste {use['waste_percent']:.1f} %, free {use['free_percent']:.1f} %",
            )
        )
    rows.append(
        Prediction(
            quantity="waste of paged blocks",
            predicted="half a block a sequence",
            claimed="under 4 %, existing systems 60 to 80 %",
            source="vLLM post, 2023",
            measured=", ".join(
                f"{use['waste_percent']:.1f} % ({use['name']})"
                for use in found["measured"]
                if use["name"].startswith("paged")
            ),
        )
    )
    return rows


def _table(found: Mapping[str, Any]) -> Table:
    names = ("states", "reserved", "internal", "external", "free", "waste")
    return Table(
        title="KV memory, %",
        header=("", "tokens", "reserved", "internal", "external", "free", "waste", "at once"),
        rows=[
            [
                _title(use["name"]),
                *(f"{use[f'{name}_percent']:.1f}" for name in names),
                f"{use['mean_running']:.1f}",
            ]
            for use in found["measured"]
        ],
        notes=("waste = reserved + internal + external; free is what any request may have.",),
    )
