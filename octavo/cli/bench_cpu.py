"""`octavo bench cpu`: mixed work, prefill, decoding, HTTP and start-up in one run; beside peers if asked."""

from __future__ import annotations

import argparse
import asyncio
import statistics
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from octavo.bench.cpu_spec import CpuSpec
from octavo.cli.bench_compare import make_targets, show_comparison
from octavo.cli.bench_output import add_output_flag, check_output, progress, show_table, write_output
from octavo.cli.config_flags import (
    ENGINE_GROUPS,
    add_config_flags,
    add_engine_flags,
    add_model_positional,
    flag_words,
    read_config,
    read_engine_config,
)
from octavo.errors import ConfigError

if TYPE_CHECKING:
    from octavo.bench.compare import ComparisonRun
    from octavo.config import EngineConfig

_ALIKE = ("policy", "fair_weights", "max_queued_requests", "max_queued_tokens", "queue_timeout")
_NO_EFFECT = ("model", "seed", "chat_template", *_ALIKE)
# Goal and first bar on two cores of Zen 3 with the starter model (docs/cpu-performance.md).
_GOALS = {
    "mixed, 64 at once": (">= 700", ">= 350"),
    "prefill 512": (">= 2,000", ">= 1,000"),
    "decode, 1 streams": (">= 220", ">= 160"),
    "decode, 8 streams": (">= 650", ">= 350"),
    "start to ready": ("< 2.5", "< 4"),
}
_HTTP_GOALS = (">= 85 %", ">= 75 %")
_HTTP = ", through HTTP"


def add_benchmark(benches: Any) -> None:
    parser: argparse.ArgumentParser = benches.add_parser(
        "cpu",
        help="mixed work, prefill, decoding of 1 to 64 streams, HTTP and start-up in one run",
        allow_abbrev=False,
        usage="octavo bench cpu [MODEL] [flags]",
        description="Measures the engine in this process and a server of its own, kinds of work in turn, and "
        "the start of a server; with --peers, how many times as fast it is as other engines.",
    )
    add_model_positional(parser)
    add_output_flag(parser)
    parser.add_argument(
        "--peers",
        metavar="all|NAME,...",
        help="other engines to take turns with (scripts/peers installs them): all that are installed, or "
        "some of openvino, llama-cpp, llama-server, vllm, transformers, transformers-continuous",
    )
    add_config_flags(parser, CpuSpec)
    add_engine_flags(parser, without=_NO_EFFECT)
    parser.set_defaults(run=run_cpu_command, parser=parser)


def run_cpu_command(arguments: argparse.Namespace) -> int:
    given = {name: value for name, value in vars(arguments).items() if name != "peers"}
    spec = read_config(CpuSpec, given)
    engine_given = {name: given[name] for name in given if name != "seed"}
    config = read_engine_config(engine_given)
    check_output(arguments.output)
    from octavo.bench.cpu import num_measurements, run_cpu  # noqa: PLC0415  (loads half of the package)

    peers = _peer_names(arguments.peers)
    serve_arguments = [engine_given["model"]] if "model" in engine_given else []
    for group in ENGINE_GROUPS:
        for field in fields(group):
            if field.name in engine_given and field.name != "model":
                serve_arguments += flag_words(field, engine_given[field.name])
    with progress("Measurements", num_measurements(spec)) as advance:
        report = run_cpu(config, spec, serve_arguments, on_done=advance)
    beside, absent = _run_beside(peers, config, spec) if peers else (None, [])
    _show(report, beside, absent)
    if arguments.peers == "all" and not peers:
        print("no peer is installed: scripts/peers installs them")
    peers_json = {} if beside is None else {"peers": beside.as_json() | {"absent": absent}}
    write_output(arguments.output, report | peers_json)
    return 0


def _peer_names(text: str | None) -> list[str]:
    """Raises ConfigError: a name is unknown, or Octavo's own."""
    if text is None:
        return []
    from octavo.bench.targets.registry import KINDS, installed_peers  # noqa: PLC0415

    if text == "all":
        return installed_peers()
    peers = [kind for kind, made in KINDS.items() if made.peer is not None]
    for name in text.split(","):
        if name not in peers:
            raise ConfigError(f"--peers: {name!r} is no peer (there are: all, {', '.join(peers)})")
    return text.split(",")


def _run_beside(peers: list[str], config: EngineConfig, spec: CpuSpec) -> tuple[ComparisonRun, list[str]]:
    """The same works by all of them in turns; what one of them lacks is a line."""
    from octavo.bench.compare import run_compare  # noqa: PLC0415
    from octavo.bench.compare_spec import CompareSpec  # noqa: PLC0415
    from octavo.bench.targets.settings import TargetSettings  # noqa: PLC0415
    from octavo.build import build_text  # noqa: PLC0415

    targets, absent = make_targets(["octavo", *peers], TargetSettings.of(config))
    compare_spec = CompareSpec(blocks=spec.repeats, works=spec)
    with progress("Targets and blocks", len(targets) + spec.repeats + 2) as advance:
        run = asyncio.run(
            run_compare(targets, compare_spec, build_text(config.model), on_done=lambda what: advance())
        )
    return run, absent


def _show(report: dict[str, Any], beside: ComparisonRun | None, absent: list[str]) -> None:
    others = [] if beside is None else [one.target.name for one in beside.contenders[1:] if one.is_in]
    # Beside others the width is theirs; the ends are in the output file.
    columns = ("median",) if others else ("median", "min", "max")
    rows, through_http = [], ""
    for work in report["works"]:
        name = work["name"]
        goals = _GOALS.get(name, ("", ""))
        numbers = [
            f"{work[column]:,.4g}" if work[column] < 100 else f"{work[column]:,.0f}" for column in columns
        ]
        if name.endswith(_HTTP):
            goals = _HTTP_GOALS
            through_http = f"through HTTP: {_share_of_engine(report, work):.0%} of the engine's speed"
        rows.append(
            [name, *numbers, work["unit"], *goals, *(_ratio(beside, other, name) for other in others)]
        )
    engine, load = report["engine"], report["load_average"]
    notes = [
        through_http,
        f"{report['spec']['repeats']} repeats after a warm-up; load average {load['before'][0]:.1f} "
        f"before, {load['after'][0]:.1f} after",
        f"{report['machine']['cpu']}, {report['machine']['num_cores']} cores",
    ]
    if beside is not None:
        notes.append("x PEER: how many times as fast as it, measured in turns with it; intervals below")
    show_table(
        f"{engine['model_name']}, {engine['dtype']} on {engine['device']}, kernels: {engine['kernels']}",
        ("", *columns, "unit", "goal", "first bar", *(f"x {other}" for other in others)),
        rows,
        notes,
    )
    if beside is not None:
        show_comparison(beside, absent)


def _share_of_engine(report: dict[str, Any], through_http: dict[str, Any]) -> float:
    """Median of the turns' own ratios: server and engine took turns."""
    engine_name = through_http["name"].removesuffix(_HTTP)
    (engine,) = (work for work in report["works"] if work["name"] == engine_name)
    pairs = zip(through_http["values"], engine["values"], strict=True)
    return float(statistics.median(http / direct for http, direct in pairs))


def _ratio(beside: ComparisonRun | None, other: str, work: str) -> str:
    if beside is None:
        return ""
    ours, theirs = beside.pairs(beside.contenders[0].target.name, other, work)
    if not ours:
        return "–"
    from octavo.bench.statistics import paired_ratio  # noqa: PLC0415

    return f"{paired_ratio(ours, theirs).mean:.2f}"
