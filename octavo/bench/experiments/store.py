"""The folder of one experiment's results: runs as they end, so that a stopped experiment goes on.

settings.json     what was asked; a resumed run must ask the same
runs/*.json       one file a run, written whole or not at all
results.json      everything that the report draws
requests.jsonl    one line a request      timeline.jsonl    one line a step of a target
measures.csv      one line a number       report.html, figures/*.svg
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from octavo.bench.experiments.measures import METRICS
from octavo.bench.experiments.results import Results, RunOutcome
from octavo.bench.targets.target import TargetDescription
from octavo.errors import ConfigError


class ResultsFolder:
    """Args:
    resume: go on in a folder that has runs; without it such a folder is refused.

    Raises:
        ConfigError: the folder cannot be written, holds runs already, or was made with other settings.
    """

    def __init__(self, path: Path, settings: dict[str, Any], *, resume: bool) -> None:
        self.path = path
        kept = path / "settings.json"
        settings = json.loads(json.dumps(settings))  # tuples become lists, as they are when read back
        try:
            (path / "runs").mkdir(parents=True, exist_ok=True)
            (path / "figures").mkdir(exist_ok=True)
            if kept.exists():
                self._check_resume(json.loads(kept.read_text("utf-8")), settings, resume)
            elif resume:
                raise ConfigError(f"--resume: there is nothing to go on with in {path}")
            _write(kept, json.dumps(settings, indent=1))
        except (OSError, ValueError) as error:
            raise ConfigError(f"--out {path}: cannot be used: {error}") from None

    def _check_resume(self, before: dict[str, Any], now: dict[str, Any], resume: bool) -> None:
        if not resume:
            raise ConfigError(
                f"--out {self.path}: there are results already; go on with --resume, or name another folder"
            )
        for name, value in now.items():
            if before.get(name) != value:
                raise ConfigError(
                    f"--resume: {name} was {before.get(name)!r} and is now {value!r}; results of both cannot "
                    "stand in one folder"
                )

    def keep(self, outcome: RunOutcome) -> None:
        """Write a run whole or not at all."""
        name = hashlib.sha256("/".join(map(str, outcome.key)).encode()).hexdigest()[:16]
        _write(self.path / "runs" / f"block{outcome.block}-{name}.json", json.dumps(outcome.as_json()))

    def load(self, results: Results) -> None:
        """Add what earlier runs left.

        Raises:
            ConfigError: a file is damaged.
        """
        for path in sorted((self.path / "runs").glob("block*.json")):
            try:
                results.add(RunOutcome.from_json(json.loads(path.read_text("utf-8"))))
            except (OSError, ValueError, TypeError, KeyError):
                raise ConfigError(f"{path}: it is damaged; remove it and go on with --resume") from None

    def keep_calculated(self, numbers: dict[str, Any]) -> None:
        """What needed no target."""
        _write(self.path / "runs" / "calculated.json", json.dumps(numbers))

    def load_calculated(self) -> dict[str, Any] | None:
        path = self.path / "runs" / "calculated.json"
        if not path.exists():
            return None
        numbers: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return numbers

    def keep_targets(
        self, descriptions: Mapping[str, TargetDescription], conformance: Mapping[str, Any]
    ) -> None:
        """What is known of the targets that were started: a resumed run may not need to start them again."""
        kept = {"descriptions": {name: asdict(one) for name, one in descriptions.items()}}
        _write(self.path / "runs" / "targets.json", json.dumps(kept | {"conformance": dict(conformance)}))

    def load_targets(self) -> tuple[dict[str, TargetDescription], dict[str, Any]]:
        """Descriptions and conformance of the targets that earlier runs started.

        Raises:
            ConfigError: the file is damaged.
        """
        path = self.path / "runs" / "targets.json"
        if not path.exists():
            return {}, {}
        try:
            kept = json.loads(path.read_text("utf-8"))
            descriptions = {name: TargetDescription(**one) for name, one in kept["descriptions"].items()}
            return descriptions, dict(kept["conformance"])
        except (OSError, ValueError, TypeError, KeyError):
            raise ConfigError(f"{path}: it is damaged; remove it and go on with --resume") from None

    def write_results(self, document: dict[str, Any], results: Results) -> None:
        """Everything but report and figures."""
        _write(self.path / "results.json", json.dumps(document, indent=1))
        _write_lines(self.path / "requests.jsonl", _request_lines(results))
        _write_lines(self.path / "timeline.jsonl", _timeline_lines(results))
        _write(self.path / "measures.csv", measures_csv(results))

    def write_figures(self, report: str, figures: dict[str, str]) -> None:
        """The report, and its figures as files of their own."""
        _write(self.path / "report.html", report)
        for name, svg in figures.items():
            _write(self.path / "figures" / f"{name}.svg", svg)


def measures_csv(results: Results) -> str:
    """condition, target, block, metric, unit, value."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("condition", "target", "block", "metric", "unit", "value"))
    for run in results.outcomes:
        for name, value in run.metrics.items():
            table.writerow((run.condition, run.target, run.block, name, METRICS[name].unit, f"{value:.6g}"))
    return text.getvalue()


def _request_lines(results: Results) -> Iterable[dict[str, Any]]:
    for run in results.outcomes:
        for one in run.as_json()["requests"]:
            yield {"condition": run.condition, "target": run.target, "block": run.block} | one


def _timeline_lines(results: Results) -> Iterable[dict[str, Any]]:
    for run in results.outcomes:
        names = list(run.steps)
        for values in zip(*run.steps.values(), strict=True):
            numbers = dict(zip(names, values, strict=True))
            yield {"condition": run.condition, "target": run.target, "block": run.block} | numbers


def _write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    _write(path, "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))


def _write(path: Path, text: str) -> None:
    """Whole or not at all: whoever stops us finds the old file or the new one."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None
