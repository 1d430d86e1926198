"""`octavo bench quality`: what the default number formats cost, against float32 throughout."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from octavo.bench.quality_spec import QualitySpec
from octavo.cli.bench_output import add_output_flag, check_output, show_table, write_output
from octavo.cli.config_flags import add_config_flags, add_model_positional, read_config
from octavo.config import ComputeConfig, EngineConfig, ModelConfig

if TYPE_CHECKING:
    from octavo.bench.quality import QualityReport

_NO_EFFECT = ("model", "chat_template", "max_model_len")
_HEADER = ("", "perplexity", "ratio", "mean KL", "largest KL", "same top 1")


def add_benchmark(benches: Any) -> None:
    parser: argparse.ArgumentParser = benches.add_parser(
        "quality",
        help="perplexity, KL divergence and top-1 agreement against float32 throughout",
        allow_abbrev=False,
        usage="octavo bench quality [MODEL] [flags]",
        description="Reads real text with the model as it is served and with the same weights in float32 "
        "throughout, and compares the two distributions over the next token at every place.",
    )
    add_model_positional(parser)
    add_output_flag(parser)
    add_config_flags(parser, QualitySpec)
    add_config_flags(parser, ModelConfig, without=_NO_EFFECT)
    add_config_flags(parser, ComputeConfig)
    parser.set_defaults(run=run_quality_command, parser=parser)


def run_quality_command(arguments: argparse.Namespace) -> int:
    given = vars(arguments)
    spec = read_config(QualitySpec, given)
    config = EngineConfig(model=read_config(ModelConfig, given), compute=read_config(ComputeConfig, given))
    check_output(arguments.output)
    from octavo.bench.quality import run_quality  # noqa: PLC0415  (loads half of the package)

    if not sys.stderr.isatty():
        report = run_quality(config, spec)
    else:
        from rich.console import Console  # noqa: PLC0415  (only where something is drawn)
        from rich.progress import Progress  # noqa: PLC0415

        with Progress(console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
            task_id = bar.add_task("Tokens read", total=spec.num_tokens)
            report = run_quality(
                config, spec, on_tokens=lambda read, wanted: bar.update(task_id, completed=read, total=wanted)
            )
    _show(report)
    write_output(arguments.output, report.as_json())
    return 0


def _show(report: QualityReport) -> None:
    rows = [["float32, KV float32", f"{report.reference_perplexity:.3f}", "", "", "", ""]]
    for form in report.forms:
        rows.append(
            [
                f"{form.weights}, KV {form.kv}",
                f"{form.perplexity:.3f}",
                f"{form.perplexity_ratio:.4f}",
                f"{form.mean_kl:.4f}",
                f"{form.max_kl:.4f}",
                f"{100 * form.top1_agreement:.2f} %",
            ]
        )
    licence = "" if report.prose.licence is None else f" ({report.prose.licence})"
    show_table(
        f"{report.model_name} against float32 throughout, {report.num_tokens:,} tokens, "
        f"kernels: {report.kernels}",
        _HEADER,
        rows,
        (
            f"Text: {report.prose.source}{licence}, in {report.num_windows:,} windows of "
            f"{report.spec.window} tokens; SHA-256 {report.prose.sha256[:16]}.",
            "KL in nats, from the reference to the form.",
        ),
    )
