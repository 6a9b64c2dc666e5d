"""What goes into a report: curves that keep their spikes, tables with an end, data that is no markup."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import counterfoil
from counterfoil import Record, Run, alignment, cli, commit_tensors
from counterfoil.errors import Refuted
from counterfoil.report import embedded, ledgers, page, series, tensors, write_report
from counterfoil.report.reading import walk
from counterfoil.testing.tamper import TAMPERINGS
from counterfoil.verify import verify

HOSTILE = "</script><img src=x onerror=alert(1)>"


class Parsed(HTMLParser):
    """The page's elements, and what lies in its scripts and style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._open = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open = dict(attrs).get("id") or tag

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open] = self.texts.get(self._open, "") + data


def parsed(path: Path) -> tuple[Parsed, dict[str, Any]]:
    found = Parsed(path.read_text())
    return found, json.loads(found.texts["data"])


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["counterfoil", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def walked(path: Path) -> tuple[Record, Any]:
    record = Record(path)
    return record, walk(record, verify(record))


@pytest.mark.parametrize("length", [1, 2, 1999, 2000, 2001, 9999, 1_000_000])
def test_a_spike_survives(length: int) -> None:
    """Decimation that takes every n-th point, or one that gives more than it may."""
    points = [(step, math.sin(step / 50)) for step in range(1, length + 1)]
    for at in {0, length // 3, length - 1}:
        points[at] = (points[at][0], 1000.0 + at)
    points[length // 2] = (points[length // 2][0], -1000.0)
    kept = series.decimate(points)
    assert len(kept) <= series.POINTS
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert kept == sorted(set(kept) & set(points))
    assert {min(value for _, value in points), max(value for _, value in points)} <= {v for _, v in kept}
    assert points[length // 3] in kept


def test_a_loss_that_is_no_number_is_told(tmp_path: Path) -> None:
    """NaN is no JSON: it must neither stop the page nor vanish from the curve unsaid."""
    with Run.create(tmp_path / "run") as run:
        for step, loss in enumerate([1.0, math.nan, math.inf, 2.0], 1):
            run.record_step(step, {"metrics": commit_tensors({"loss": loss}, keep=True)})
    (chart,) = series.curves(*walked(tmp_path / "run"))["metrics"]
    (curve,) = chart["series"]
    assert curve["points"] == [(1, 1.0), (4, 2.0)]
    assert (curve["of"], curve["notFinite"], curve["notFiniteCount"]) == (4, [[2, "nan"], [3, "inf"]], 2)
    write_report(tmp_path / "run", tmp_path / "report.html")
    parsed(tmp_path / "report.html")


def test_norms_are_of_whole_gradients(tmp_path: Path) -> None:
    """A norm over the tensors that happen to be stored, or one of bits that are read as another dtype."""
    values = {
        "a": np.arange(4, dtype=np.float32),
        "b": np.array([1.5, -2], np.float64),
        "c": np.array(3, np.float16),
    }
    with Run.create(tmp_path / "run") as run:
        stored = run.store(values)
        more = commit_tensors({**values, "d": np.float32(7)})
        run.record_step(1, {"gradients": stored})
        run.record_checkpoint(1, {"parameters": stored})
        run.record_step(2, {"gradients": more})
    found = series.curves(*walked(tmp_path / "run"))
    expected = math.sqrt(0 + 1 + 4 + 9 + 1.5**2 + 4 + 9)
    ((step, norm),) = found["norm"]["series"][0]["points"]
    assert step == 1
    assert norm == pytest.approx(expected, rel=1e-12)
    # 1.5 and -2 as bfloat16, little-endian.
    assert list(series._decoded("BF16", bytes.fromhex("c03f00c0"))) == [1.5, -2.0]
    assert series._decoded("I64", bytes(8)) is None


def test_without_stored_gradients_there_is_no_norm(recorded: Path) -> None:
    found = series.curves(*walked(recorded))
    assert (found["norm"], found["normIsMetric"]) == (None, [])


def test_steps_behind_a_resume_leave_the_curve(tmp_path: Path) -> None:
    """A curve that goes back, through steps that led nowhere."""
    with Run.create(tmp_path / "run") as run:
        for step in (1, 2, 3):
            run.record_step(step, {"metrics": commit_tensors({"loss": float(step)}, keep=True)})
    with Run.open(tmp_path / "run") as run:
        run.record_resume(1, 2)
        run.record_step(2, {"metrics": commit_tensors({"loss": 20.0}, keep=True)})
    record, lanes = walked(tmp_path / "run")
    (curve,) = series.curves(record, lanes)["metrics"][0]["series"]
    assert curve["points"] == [(1, 1.0), (2, 20.0)]
    assert ledgers.lanes(record, lanes)["listed"][0]["abandoned"] == 2


def test_long_ledgers_are_cut_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that grows with the run, or that drops what the verdict names."""
    monkeypatch.setattr(ledgers, "ROWS", 20)
    monkeypatch.setattr(tensors, "STEPS", 10)
    monkeypatch.setattr(tensors, "TENSORS", 3)
    gradients = commit_tensors({f"w{at}": np.float32(at) for at in range(5)})
    with Run.create(tmp_path / "run") as run:
        for step in range(1, 101):
            run.record_step(
                step, {"gradients": gradients, "metrics": commit_tensors({"loss": 1.0}, keep=True)}
            )
    TAMPERINGS["loss edited"](tmp_path / "run")
    record = Record(tmp_path / "run")
    with pytest.raises(Refuted) as refuted:
        verify(record)
    (edge,) = refuted.value.verdict.broken
    (position,) = map(int, re.findall(r"receipt (\d+)", edge.edge))
    lanes = walk(record, refuted.value.verdict)
    (listed,) = ledgers.lanes(record, lanes)["listed"]
    assert (len(listed["rows"]), listed["leftOut"]) == (20, listed["shown"] - 20)
    assert position in [row[0] for row in listed["rows"]]
    found = tensors.states(record, lanes)
    assert position in [state["position"] for state in found["listed"]]
    assert len(found["listed"]) + found["leftOut"] == 100
    assert len(found["listed"]) <= 10
    whole = next(state for state in found["listed"] if state["position"] != position)
    assert (len(whole["tensors"]["gradients"]["roots"]), whole["tensors"]["gradients"]["leftOut"]) == (3, 2)
    assert len(found["layouts"]) == 1


def test_data_never_becomes_markup() -> None:
    value = {HOSTILE: ["<!--", "&amp;", "\u2028\u2029", "\ud800", "@@SCRIPT@@"]}
    text = page.embedded_json(value)
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == value
    html = page.render({"name": "@@STYLE@@"}, b"@@", None).decode()
    assert json.loads(Parsed(html).texts["data"]) == {"name": "@@STYLE@@"}


def test_the_policy_allows_this_script_and_nothing_else(recorded: Path, tmp_path: Path) -> None:
    """A policy with a hole, or one whose hash is of another text."""
    write_report(recorded, tmp_path / "report.html")
    found, _ = parsed(tmp_path / "report.html")
    policy = next(attributes["content"] for tag, attributes in found.tags if attributes.get("http-equiv"))
    rules = dict(rule.split(" ", 1) for rule in str(policy).split("; "))

    def digest(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    assert rules == {
        "default-src": "'none'",
        "script-src": f"{digest(found.texts['script'])} 'wasm-unsafe-eval'",
        "style-src": digest(found.texts["style"]),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    names = {name for _, attributes in found.tags for name in attributes}
    assert not [name for name in names if name in ("src", "style", "srcset") or name.startswith("on")]
    assert all(str(attributes.get("href", "#")).startswith("#") for _, attributes in found.tags)


def test_the_page_holds_what_was_verified(recorded: Path, tmp_path: Path) -> None:
    """A bundle in the page that is another one, or a verifier that is."""
    bundle, out = tmp_path / "bundle", tmp_path / "report.html"
    counterfoil.export(recorded, bundle)
    verdict = write_report(bundle, out, signer=Record(bundle).receipts()[0].signer)
    found, data = parsed(out)
    assert base64.b64decode(json.loads(found.texts["bundle"])) == bundle.read_bytes()
    assert data["offline"] == data["recorded"]
    assert data["recorded"]["verdict"] == json.loads(verdict.to_json())
    held = json.loads(found.texts["verifier"])
    built = embedded.verifier()
    assert (held is None) is (built is None)
    assert built is None or gzip.decompress(base64.b64decode(held)) == built
    assert str(tmp_path) not in out.read_text()


def test_too_large_a_bundle_is_left_out(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "EMBEDDED_LIMIT", 1000)
    bundle = tmp_path / "bundle"
    counterfoil.export(recorded, bundle)
    for run in (recorded, bundle):
        write_report(run, tmp_path / "report.html")
        found, data = parsed(tmp_path / "report.html")
        assert json.loads(found.texts["bundle"]) is None
        assert "at most 1,000" in data["withoutBundle"]
        assert data["offline"] is None


@pytest.mark.parametrize(
    ("change", "options", "expected"),
    [
        (lambda run: None, [], 0),
        (lambda run: None, ["--require", "stranger"], 4),
        (TAMPERINGS["loss edited"], [], 3),
        (TAMPERINGS["weight flipped"], [], 3),
        (lambda run: None, ["--signer", "0x" + "11" * 20], 3),
    ],
)
def test_its_exit_codes_are_those_of_verify(
    copy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], object],
    options: list[str],
    expected: int,
) -> None:
    """A refuted run without a report, or one that a script takes for verified."""
    change(copy)
    out = tmp_path / "report.html"
    assert command(monkeypatch, "report", copy, "-o", out, *options) == expected
    told = capsys.readouterr().out
    assert command(monkeypatch, "verify", copy, *options) == expected
    assert told.split("\n", 1)[1] == capsys.readouterr().out
    _, data = parsed(out)
    assert data["recorded"]["headline"] in told


def test_a_damaged_bundle_leaves_the_old_report(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, out = tmp_path / "bundle", tmp_path / "report.html"
    counterfoil.export(recorded, bundle)
    bundle.write_bytes(bundle.read_bytes()[:-1])
    out.write_text("the old one")
    assert command(monkeypatch, "report", bundle, "-o", out) == 1
    assert "damaged" in capsys.readouterr().err
    assert command(monkeypatch, "report", tmp_path / "nothing", "-o", out) == 1
    assert out.read_text() == "the old one"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bundle", "report.html"]


def test_without_the_verifier_it_says_so(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(embedded, "_VERIFIER", tmp_path / "none")
    assert command(monkeypatch, "report", recorded, "-o", tmp_path / "report.html") == 0
    assert "the page checks nothing" in capsys.readouterr().err
    found, _ = parsed(tmp_path / "report.html")
    assert json.loads(found.texts["verifier"]) is None


def test_what_is_withheld_is_not_called_absent(recorded: Path, tmp_path: Path) -> None:
    """A field whose opening was left out, told as one that was never recorded."""
    counterfoil.export(recorded, tmp_path / "bundle", tensors=["metrics"])
    record, lanes = walked(tmp_path / "bundle")
    state = next(each for each in tensors.states(record, lanes)["listed"] if each["kind"] == "step")
    fields = {name: (digest != "", count) for name, digest, count in state["fields"]}
    assert fields["metrics"] == (True, 1)
    assert fields["gradients"] == (True, None)
    assert fields["samples"] == (False, None)


def test_settings_are_of_the_first_step(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", spec={"seed": 3}) as run:
        for step, rate in ((1, 0.1), (2, 0.2)):
            run.record_step(step, {"hyperparameters": commit_tensors({"lr": rate, "fused": None}, keep=True)})
    write_report(tmp_path / "run", tmp_path / "report.html")
    _, data = parsed(tmp_path / "report.html")
    held = data["settings"]["hyperparameters"]
    assert (held["of"], held["values"]) == ("step 1", [["fused", "not set"], ["lr", "0.1"]])
    assert data["settings"]["environment"] is None
    assert json.loads(data["settings"]["specification"])["seed"] == 3
    assert data["settings"]["recipe"] is None


def test_each_lane_has_its_contributor(tmp_path: Path) -> None:
    """Receipts, role and session key of one lane, told of another."""
    other, session = counterfoil.Key.generate(), counterfoil.Session(counterfoil.Key.generate())
    step = {"gradients": commit_tensors({"w": np.float32(1)})}
    with Run.create(tmp_path / "run") as run:
        run.record_step(1, step)
        with Run.join(tmp_path / "run", lane=1, key=other, session=session) as joined:
            joined.record_step(1, step)
            joined.record_step(2, step)
    record, lanes = walked(tmp_path / "run")
    listed = {(each["worker"], each["lane"]): each for each in ledgers.lanes(record, lanes)["listed"]}
    assert listed[other.address, 1]["keys"] == [session.key.address]
    assert dict(listed[other.address, 1]["kinds"])["step"] == 2
    (owner,) = (each for place, each in listed.items() if place[0] != other.address)
    assert (owner["keys"], dict(owner["kinds"])["step"], owner["role"]) == ([], 1, "worker")


def test_evaluations_are_told_with_their_checkpoint(tmp_path: Path) -> None:
    """A number without the checkpoint that it was measured of, or a curve through numbers of different ones."""
    evaluator = counterfoil.Key.generate()
    with Run.create(tmp_path / "run") as run:
        run.record_step(1, {"metrics": commit_tensors({"loss": 1.0}, keep=True)})
        run.record_checkpoint(1, {"parameters": run.store({"w": np.float32(1)})})
        owner = run.worker
    checkpoint = next(each for each in Record(run.path).receipts() if each.kind == "checkpoint")
    with Run.join(run.path, lane=7, key=evaluator, observes=True) as observing:
        measured = {"accuracy": 0.875, HOSTILE: 1.0}
        alignment.record_evaluation(
            observing,
            checkpoint,
            held_out=commit_tensors({"content": np.zeros((2, 32), np.uint8)}),
            metrics=measured,
        )
    record, lanes = walked(run.path)
    (found,) = series.evaluations(record, lanes)["listed"]
    assert (found["worker"], found["lane"]) == (evaluator.address, 7)
    assert (found["ofWorker"], found["ofLane"], found["ofReceipt"]) == (owner, 0, checkpoint.sequence)
    assert sorted(found["values"]) == sorted([["accuracy", "0.875"], [HOSTILE, "1.0"]])
    assert [chart["name"] for chart in series.curves(record, lanes)["metrics"]] == ["loss"]
    listed = ledgers.lanes(record, lanes)["listed"]
    (row,) = (row for lane in listed for row in lane["rows"] if row[1] == "evaluation")
    assert row[4] == f"of receipt {checkpoint.sequence} of {owner[:8]}… lane 0"
    assert next(lane for lane in listed if lane["lane"] == 7)["role"] == "observer"


def test_no_script_or_style_ends_its_own_element() -> None:
    """`</script` in a package file would let the rest of it become markup, and CRLF would break its hash."""
    folder = Path(page.__file__).parent
    for path in [*folder.glob("*.js"), folder / "style.css"]:
        content = path.read_bytes()
        assert b"</" not in content, path.name
        assert b"\r" not in content
        assert b"innerHTML" not in content
        assert b"eval(" not in content
