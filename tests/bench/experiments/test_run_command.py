"""`octavo bench run` from command line to report: files, resuming, crashes, refusals, and Chromium."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from octavo.bench.experiments import runner
from octavo.bench.experiments.catalogue import EXPERIMENTS
from octavo.bench.experiments.runner import ExperimentRunner
from octavo.bench.random_model import write_random_model
from octavo.bench.targets.target import TargetError
from octavo.cli.bench_run import NAMES
from octavo.cli.main import main

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("random") / "opt-tiny"
    write_random_model("opt-tiny", folder)
    return folder


def run(model, out, experiment: str, *more: str) -> int:
    words = ["bench", "run", experiment, "--model", model, "--out", out, "--kv-cache-memory", "16MB", *more]
    return main([*map(str, words), "--num-threads", "1"])


def test_the_command_line_names_every_experiment():
    assert set(NAMES) == set(EXPERIMENTS)
    assert all(one.name == name for name, one in EXPERIMENTS.items())


@pytest.mark.parametrize("experiment", ["scaling", "single-user", "batching", "table"])
def test_smoke_writes_every_file(model, tmp_path, experiment, capsys):
    assert run(model, tmp_path, experiment) == 0
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["failures"] == {}
    assert document["hypothesis"] and document["predictions"] and document["panels"]
    names = {panel["name"] for panel in document["panels"]}
    assert len(names) == len(document["panels"])
    drawn = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert drawn <= names and drawn
    page = (tmp_path / "report.html").read_text()
    assert page.count("<figure") == len(drawn)
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").partition('id="data"')[0]
    for name in ("requests.jsonl", "timeline.jsonl", "measures.csv"):
        assert (tmp_path / name).exists()
    if document["measures"]:
        assert len((tmp_path / "requests.jsonl").read_text().splitlines()) > 8
        assert len((tmp_path / "timeline.jsonl").read_text().splitlines()) > 8
    assert "Report:" in capsys.readouterr().out


def test_a_run_that_was_stopped_goes_on_where_it_was(model, tmp_path, monkeypatch, capsys):
    whole = ExperimentRunner._run_one
    done = []

    async def stop_after_three(self, condition, name, block):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append((condition.name, block))
        await whole(self, condition, name, block)

    monkeypatch.setattr(ExperimentRunner, "_run_one", stop_after_three)
    assert run(model, tmp_path, "single-user") == 130
    assert "--resume" in capsys.readouterr().err
    assert run(model, tmp_path, "single-user") == 2  # there are results already
    assert "--resume" in capsys.readouterr().err
    assert run(model, tmp_path, "single-user", "--resume", "--seed", "1") == 2
    assert "seed was 0 and is now 1" in capsys.readouterr().err
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("block*")}
    assert len(kept) == 3
    monkeypatch.setattr(ExperimentRunner, "_run_one", whole)
    assert run(model, tmp_path, "single-user", "--resume") == 0
    assert len(list((tmp_path / "runs").glob("block*"))) == 4
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())


def test_a_resumed_run_knows_its_targets_and_checks_again_what_failed(model, tmp_path):
    words = ("--target", "octavo", "--target", "other:octavo")
    assert run(model, tmp_path, "single-user", *words) == 0
    before = json.loads((tmp_path / "results.json").read_text())
    assert run(model, tmp_path, "single-user", *words, "--resume") == 0  # nothing to run, nothing started
    after = json.loads((tmp_path / "results.json").read_text())
    assert [after[name] for name in ("targets", "conformance", "measures")] == [
        before[name] for name in ("targets", "conformance", "measures")
    ]
    path = tmp_path / "runs" / "targets.json"
    kept = json.loads(path.read_text())
    kept["conformance"]["other"] |= {"failure": "it did other work", "agreement": 0.0}
    path.write_text(json.dumps(kept))
    next(one for one in (tmp_path / "runs").glob("block*") if '"other"' in one.read_text()).unlink()
    assert run(model, tmp_path, "single-user", *words, "--resume") == 0
    checked = json.loads((tmp_path / "results.json").read_text())["conformance"]["other"]
    assert checked["failure"] is None and checked["agreement"] == 1.0


def test_a_target_that_does_not_start_is_reported_and_the_rest_goes_on(model, tmp_path, capsys):
    assert run(model, tmp_path, "single-user", "--target", "octavo", "--target", "llama-cpp") == 0
    document = json.loads((tmp_path / "results.json").read_text())
    assert list(document["failures"]) == ["llama-cpp"]
    assert {one["target"] for one in document["measures"]} == {"octavo"}
    assert "llama-cpp" in capsys.readouterr().out


def test_a_target_that_breaks_midway_ends_alone(model, tmp_path, monkeypatch):
    whole = runner.run_condition
    runs = []

    async def break_second(target, condition, load, **more):
        runs.append(target.name)
        if target.name == "other" and runs.count("other") == 2:
            raise TargetError("other: it broke")
        return await whole(target, condition, load, **more)

    monkeypatch.setattr(runner, "run_condition", break_second)
    assert run(model, tmp_path, "single-user", "--target", "octavo", "--target", "other:octavo") == 0
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["failures"] == {"other": "other: it broke"}
    assert runs.count("other") == 2 and runs.count("octavo") == 4
    assert any(one["target"] == "other" for one in document["measures"])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("batching", "--target", "llama-cpp"), "--target has no effect on batching"),
        (("table", "--target", "nonsense"), "there is no target 'nonsense'"),
        (("table", "--target", "octavo", "--target", "octavo"), "the same label"),
        (("table", "--resume"), "nothing to go on with"),
        (("tabel",), "tabel"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(model, tmp_path, words, complaint, capsys):
    assert run(model, tmp_path / "out", *words) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_the_report_opens_in_a_browser_without_an_error(model, tmp_path):
    assert run(model, tmp_path, "batching") == 0
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0", "--dump-dom"]
    opened = subprocess.run(
        [CHROMIUM, *flags, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "report.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in opened.stderr
    drawable = len(list((tmp_path / "figures").glob("*.svg")))
    assert opened.stdout.count("<figure") == opened.stdout.count('class="chart"') == drawable > 5
