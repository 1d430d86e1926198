"""`octavo bench compare`: engines side by side, in blocks, with intervals and a verdict."""

from __future__ import annotations

import argparse
import asyncio
import statistics
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from octavo.bench.compare_spec import CompareSpec
from octavo.bench.cpu_spec import CpuSpec
from octavo.cli.bench_output import (
    add_output_flag,
    check_output,
    progress,
    show_table,
    show_wrapped_table,
    write_output,
)
from octavo.cli.config_flags import (
    add_config_flags,
    add_engine_flags,
    add_model_positional,
    read_config,
    read_engine_config,
)
from octavo.errors import ConfigError, OctavoError

if TYPE_CHECKING:
    from octavo.bench.compare import ComparisonRun, Contender
    from octavo.bench.targets.settings import TargetSettings
    from octavo.bench.targets.target import Target

_ALIKE = ("policy", "fair_weights", "max_queued_requests", "max_queued_tokens", "queue_timeout")
_NO_EFFECT = ("model", "seed", "chat_template", *_ALIKE)


def add_benchmark(benches: Any) -> None:
    parser: argparse.ArgumentParser = benches.add_parser(
        "compare",
        help="engines side by side: mixed work, prefill, decoding, in interleaved blocks",
        allow_abbrev=False,
        usage="octavo bench compare [MODEL] --target NAME --target NAME ... [flags]",
        description="Loads every target, checks that each does the work as asked, and lets them take turns. "
        "Targets: octavo, octavo-http, openvino, llama-cpp, llama-server, vllm, transformers, "
        "transformers-continuous (scripts/peers installs the others), NAME=URL for any OpenAI server, "
        "tgi=URL; options as octavo=dtype=float32, another label as LABEL:NAME.",
    )
    add_model_positional(parser)
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="NAME[=URL|OPTIONS]",
        help="an engine; the first is what the others are compared with (again for each)",
    )
    add_output_flag(parser)
    parser.add_argument(
        "--resume", action="store_true", help="go on with the blocks that a stopped run left beside --output"
    )
    add_config_flags(parser, CompareSpec, without=("works",))
    add_config_flags(parser, CpuSpec, without=("repeats",))
    add_engine_flags(parser, without=_NO_EFFECT)
    parser.set_defaults(run=run_compare_command, parser=parser)


def run_compare_command(arguments: argparse.Namespace) -> int:
    given = {name: value for name, value in vars(arguments).items() if name not in ("target", "resume")}
    if len(arguments.target) < 2:
        raise ConfigError("give --target at least twice: there is nothing to compare with")
    if arguments.resume and arguments.output is None:
        raise ConfigError("--resume has an effect only with --output, beside which the blocks are")
    works = read_config(CpuSpec, given)
    spec = read_config(CompareSpec, given | {"works": works})
    config = read_engine_config({name: given[name] for name in given if name != "seed"})
    check_output(arguments.output)
    from octavo.bench.compare import resume_path, run_compare  # noqa: PLC0415  (loads half of the package)
    from octavo.bench.targets.settings import TargetSettings  # noqa: PLC0415
    from octavo.build import build_text  # noqa: PLC0415

    settings = TargetSettings.of(config)
    targets, absent = make_targets(arguments.target, settings)
    log = resume_path(arguments.output)
    if log is not None:
        log.begin({"targets": arguments.target, "spec": asdict(spec)}, resumes=arguments.resume)
    with progress("Targets and blocks", len(targets) + spec.blocks + 2) as advance:
        run = asyncio.run(
            run_compare(targets, spec, build_text(config.model), log=log, on_done=lambda what: advance())
        )
    show_comparison(run, absent)
    write_output(arguments.output, run.as_json() | {"absent": absent})
    return 0


def make_targets(words: list[str], settings: TargetSettings) -> tuple[list[Target], list[str]]:
    """The targets, and one line for each that cannot be had.

    Raises:
        ConfigError: a word is wrong, or the first target cannot be had.
    """
    from octavo.bench.targets.registry import make_target, parse_target  # noqa: PLC0415
    from octavo.bench.targets.target import TargetError  # noqa: PLC0415

    names = [parse_target(word) for word in words]
    targets, absent = [], []
    for name in names:
        try:
            targets.append(make_target(name, settings))
        except TargetError as error:
            if not targets:
                raise OctavoError(str(error)) from None
            absent.append(str(error))
    return targets, absent


def show_comparison(run: ComparisonRun, absent: list[str]) -> None:
    """Speeds, ratios with their verdicts, what each was given, and who is out."""
    from octavo.bench.statistics.verdict import compare  # noqa: PLC0415

    live = [one.target.name for one in run.contenders if one.is_in]
    first = run.contenders[0].target.name
    speeds = [
        [f"{work}, {name}", *_speed(run.values(name, work))] for work in run.work_names for name in live
    ]
    show_table(f"Tokens per second, {len(run.blocks)} blocks", ("", "median", "min", "max"), speeds, ())
    rows = []
    for other in live:
        for work in run.work_names if other != first else ():
            ours, theirs = run.pairs(first, other, work)
            if ours:
                found = compare(ours, theirs, higher_is_better=True)
                interval = "" if found.low is None else f"[{found.low:.2f}, {found.high:.2f}]"
                rows.append([f"{work}, over {other}", f"{found.ratio:.2f}", interval, str(found.verdict)])
    notes = [f"{one.target.name} is out: {one.failure}" for one in run.contenders if not one.is_in]
    notes += [f"left out: {line}" for line in absent]
    if run.num_repeated:
        notes.append(f"{run.num_repeated} blocks were measured again: the machine itself had changed")
    notes.append("better, worse: the 95 % interval excludes 1 and the effect exceeds 3 %")
    show_table(f"{first} over the others", ("", "ratio", "95 % interval", "verdict"), rows, notes)
    show_fairness(run.contenders)


def show_fairness(contenders: list[Contender]) -> None:
    """What each was given, and what its outputs were like."""
    from octavo.bench.load.fairness import fairness_rows  # noqa: PLC0415

    described = [one for one in contenders if one.description is not None]
    rows = [
        [item, *values]
        for item, values, _ in fairness_rows([one.description for one in described if one.description])
    ]
    rows.append(["exact lengths", *(_conformance(one, "has_exact_lengths") for one in described)])
    rows.append(["same first token", *(_first_tokens(one) for one in described)])
    rows.append(["same output up to", *(_conformance(one, "agreement") for one in described)])
    rows.append(["tokens a chunk", *(_conformance(one, "tokens_per_chunk") for one in described)])
    rows.append(["flags", *(" ".join(one.description.flags if one.description else ()) for one in described)])
    show_wrapped_table("What each was given", ("", *(one.target.name for one in described)), rows)


def _first_tokens(one: Contender) -> str:
    found = one.conformance
    if found is None:
        return "unknown"
    return f"{round(found.first_agreement * found.num_prompts)} of {found.num_prompts} prompts"


def _conformance(one: Contender, field: str) -> str:
    if one.conformance is None:
        return "unknown"
    value = getattr(one.conformance, field)
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.2f}" if field == "tokens_per_chunk" else f"{value:.0%}"


def _speed(values: list[float]) -> list[str]:
    if not values:
        return ["–", "", ""]
    return [f"{number:,.1f}" for number in (statistics.median(values), min(values), max(values))]
