"""The report in a headless Chromium: green only for what the browser found itself, red where the edge lies."""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import browser as browsers
import counterfoil
import samples
from counterfoil import Key, Run, commit_tensors
from counterfoil.report import verifier, write_report
from counterfoil.testing.resign import resign
from counterfoil.testing.tamper import HEAD, RECEIPT, TAMPERINGS, read_frames, write_frames

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples/recorded"
HOSTILE = "</script><img src=x onerror=alert(1)>"

pytestmark = pytest.mark.skipif(
    browsers.CHROMIUM is None or verifier() is None,
    reason="chromium or the verifier for browsers, which `make wasm` builds, is missing",
)

GREEN = "document.getElementById('verdict').classList.contains('verified')"
MARKED = """[...document.querySelectorAll('tr.bad, .alarm[data-key]')].map((each) => each.dataset.key)"""
EDGES = """[...document.querySelectorAll('#edges li')].map((each) => each.dataset.edge)"""
TEXT = "document.body.innerText"
# Text on the first ground behind it that is opaque, by WCAG's formula.
CONTRAST = """(() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const linear = (each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = parts(colour).map((each) => linear(each / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (let at = node; at !== null; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      const alpha = parts(colour)[3] ?? 1;
      if (alpha === 1) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const low = [];
  for (const node of document.body.querySelectorAll("*")) {
    const says = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim() !== "");
    if (!says || !node.checkVisibility() || node.disabled || node.tagName === "SCRIPT") continue;
    const style = getComputedStyle(node);
    const ink = node.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const [one, other] = [light(ink), light(ground(node))].sort((a, b) => b - a);
    if ((one + 0.05) / (other + 0.05) < 4.5) low.push([node.tagName, node.textContent.slice(0, 40), ink, ground(node)]);
  }
  return low;
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browsers.Browser]:
    with browsers.Browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.view(1280, 900)
        yield opened


def is_quiet(browser: browsers.Browser, page: Path) -> None:
    """Nothing was logged or thrown, and nothing but the file itself was asked for."""
    assert browser.complaints == []
    assert browser.requests == [page.resolve().as_uri()]


def forged(run: Path, change: Callable[[Path], object]) -> Path:
    change(run)
    return run


def swapped(page: Path, bundle: bytes) -> None:
    """Puts another bundle into a page, and changes nothing else."""
    text = page.read_text()
    held = f'<script type="application/json" id="bundle">{json.dumps(base64.b64encode(bundle).decode())}</script>'
    found = re.sub(r'<script type="application/json" id="bundle">.*?</script>', lambda _: held, text, count=1)
    assert found != text
    page.write_text(found)


def exported(run: Path, path: Path) -> bytes:
    counterfoil.export(run, path)
    return path.read_bytes()


def test_an_honest_run_is_green(browser: browsers.Browser, tmp_path: Path) -> None:
    """A page that cannot check, or a policy that stops its own script, style or verifier."""
    page = tmp_path / "report.html"
    owner = counterfoil.Record(EXAMPLE).receipts()[0].signer
    verdict = write_report(EXAMPLE, page, signer=owner)
    browser.open(page)
    assert browser.evaluate(GREEN)
    assert browser.evaluate(EDGES) == browser.evaluate(MARKED) == []
    assert browser.evaluate("document.getElementById('difference').hidden")
    text = browser.evaluate(TEXT)
    for line in (verdict.integrity, verdict.signer, verdict.time, verdict.transition, *verdict.not_shown):
        assert line in text
    assert "Checked in this browser" in text
    assert "A forged page can show anything" in text
    assert f"counterfoil verify evidence.counterfoil --signer {owner}" in text
    assert "Gradient norm: not recorded" in text
    assert (
        browser.evaluate("getComputedStyle(document.getElementById('badge')).backgroundColor")
        != "rgba(0, 0, 0, 0)"
    )
    is_quiet(browser, page)


RESULTS: dict[str, tuple[str, set[str]]] = {
    "loss edited": ("ledger: receipt 9 (step 6): metrics <- opening", {"receipt 9", "field metrics"}),
    "weight flipped": (
        'ledger: receipt 14 (checkpoint 10): parameters "1.bias" <- object',
        {"receipt 14", "field parameters", "parameters/1.bias"},
    ),
    "receipt changed": ("ledger: receipt 9 (step 6): body", {"receipt 9", "receipt 10"}),
    "receipt dropped": ("ledger: receipt 9 (step 7): previous", {"receipt 9", "anchor 0.json"}),
    "ledger cut": ("anchor 0.json: receipts of the ledger", {"anchor 0.json"}),
    "spec edited": ("genesis -> spec.json", {"receipt 0", "specification"}),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_tampered_folder_is_red_where_it_was_changed(
    browser: browsers.Browser, tmp_path: Path, name: str
) -> None:
    run = forged(Path(shutil.copytree(EXAMPLE, tmp_path / "run")), TAMPERINGS[name])
    page = tmp_path / "report.html"
    assert write_report(run, page).status == "refuted"
    # A folder whose stored tensor is another one makes no bundle, and its page says so.
    browser.open(page, state="unchecked" if name == "weight flipped" else "checked")
    assert not browser.evaluate(GREEN)
    assert browser.evaluate("document.getElementById('verdict').classList.contains('refuted')")
    edge, marked = RESULTS[name]
    assert edge in browser.evaluate(EDGES)
    owner = f"{counterfoil.Record(run).lanes[0][0]}/0"
    assert marked | {owner} <= set(browser.evaluate(MARKED))
    assert "receipt 3" not in browser.evaluate(MARKED)
    receipts = {int(key.split()[1]) for key in marked if key.startswith("receipt")}
    drawn = browser.evaluate(
        "[...document.querySelectorAll('#strips [data-receipt]')].map((each) => each.dataset.receipt)"
    )
    assert {str(receipt) for receipt in receipts} <= set(drawn)
    is_quiet(browser, page)


@pytest.mark.parametrize("name", [name for name in TAMPERINGS if name != "weight flipped"])
def test_a_tampered_bundle_in_an_honest_page_is_red(
    browser: browsers.Browser, tmp_path: Path, name: str
) -> None:
    """A page that believes the verdict that was written into it."""
    run = forged(Path(shutil.copytree(EXAMPLE, tmp_path / "run")), TAMPERINGS[name])
    page = tmp_path / "report.html"
    assert write_report(EXAMPLE, page).status == "verified"
    swapped(page, exported(run, tmp_path / "tampered"))
    browser.open(page)
    assert '"status": "verified"' in page.read_text()
    assert not browser.evaluate(GREEN)
    edge, _ = RESULTS[name]
    assert edge in browser.evaluate(EDGES)
    assert "This browser found something else than the page says." in browser.evaluate(TEXT)
    is_quiet(browser, page)


def test_a_flipped_byte_anywhere_is_red(browser: browsers.Browser, tmp_path: Path, recorded: Path) -> None:
    """A container that is read around its damage."""
    page, honest = tmp_path / "report.html", tmp_path / "honest.html"
    write_report(recorded, honest)
    data = exported(recorded, tmp_path / "bundle")
    for position in range(0, len(data), len(data) // 12):
        shutil.copy(honest, page)
        swapped(page, data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        browser.open(page)
        assert not browser.evaluate(GREEN), position
        assert "this browser" in browser.evaluate("document.getElementById('difference').innerText")
    is_quiet(browser, page)


def test_another_runs_bundle_is_not_green(browser: browsers.Browser, tmp_path: Path, recorded: Path) -> None:
    """An honest bundle under the curves of another run."""
    page = tmp_path / "report.html"
    write_report(EXAMPLE, page)
    swapped(page, exported(recorded, tmp_path / "other"))
    browser.open(page)
    assert not browser.evaluate(GREEN)
    assert "page and bundle differ" in browser.evaluate(TEXT)


def test_a_lie_signed_anew_is_red_at_its_step(
    browser: browsers.Browser, tmp_path: Path, copy: Path, home: Path
) -> None:
    """The owner's own key makes every signature and link right; what the receipt opens is not what it says."""

    def change(fields: dict[str, Any]) -> None:
        if str(fields.get("step")) == "5" and "metrics" in fields:
            fields["metrics"] = "0x" + "11" * 32

    resign(copy, samples.device_key(home), change)
    page = tmp_path / "report.html"
    assert write_report(copy, page).status == "refuted"
    browser.open(page)
    assert not browser.evaluate(GREEN)
    (edge,) = browser.evaluate(EDGES)
    assert re.fullmatch(r"ledger: receipt \d+ \(step 5\): metrics <- opening", edge)
    receipt = re.search(r"receipt \d+", edge)[0]
    assert {receipt, "field metrics"} <= set(browser.evaluate(MARKED))
    assert browser.evaluate("document.querySelector('#state').selectedOptions[0].textContent").startswith(
        "step 5 "
    )
    assert browser.evaluate(
        "[...document.querySelectorAll('#curves [data-step]')].map((each) => each.dataset.step)"
    ) == ["5"]
    is_quiet(browser, page)


def test_a_wrong_signer_is_red(browser: browsers.Browser, tmp_path: Path) -> None:
    page, stranger = tmp_path / "report.html", Key.generate().address
    assert write_report(EXAMPLE, page, signer=stranger).status == "refuted"
    browser.open(page)
    assert not browser.evaluate(GREEN)
    assert browser.evaluate("document.querySelector('.lines .bad').dataset.line") == "signer"
    assert "owner, not the expected one" in browser.evaluate(TEXT)
    is_quiet(browser, page)


def test_the_lane_that_was_changed_is_the_marked_one(browser: browsers.Browser, tmp_path: Path) -> None:
    """A view that accuses the owner of what another contributor did."""
    path, other = tmp_path / "run", Key.generate()
    step = {
        "gradients": commit_tensors({"w": np.float32(1)}),
        "metrics": commit_tensors({"loss": 1.0}, keep=True),
    }
    with Run.create(path) as run:
        run.record_step(1, step)
        with Run.join(path, lane=1, key=other) as joined:
            joined.record_step(1, step)
            joined.record_step(2, step)
    (journal,) = path.glob(f"workers/{other.address.lower()}/*/journal")
    frames = read_frames(journal)
    at = [at for at, frame in enumerate(frames) if frame[:1] == RECEIPT][-2]
    write_frames(journal, [frame for place, frame in enumerate(frames) if place != at and frame[:1] != HEAD])
    page = tmp_path / "report.html"
    assert write_report(path, page).status == "refuted"
    browser.open(page)
    marked = browser.evaluate(MARKED)
    owner = counterfoil.Record(path).receipts()[0].signer
    assert [key for key in marked if key.startswith("0x")] == [f"{other.address}/1"]
    assert f"{owner}/0" not in marked
    assert not browser.evaluate(GREEN)
    chosen = browser.evaluate("document.querySelector('#lane').selectedOptions[0].textContent")
    assert chosen.startswith(other.address[:8])
    is_quiet(browser, page)


def test_the_rank_that_deviates_is_marked_at_its_step(browser: browsers.Browser, tmp_path: Path) -> None:
    """An edge that names a step and no receipt, and so marks nothing, or another rank."""
    path = tmp_path / "run"
    runs = [Run.create(path), Run.join(path, lane=1, rank=1), Run.join(path, lane=2, rank=2)]
    for step, applied in enumerate([(1, 1, 1), (2, 2, 2.002)], 1):
        for rank, (run, value) in enumerate(zip(runs, applied, strict=True)):
            fields = {
                "contribution": commit_tensors({"w": np.float32(rank + step)}),
                "gradients": commit_tensors({"w": np.float32(value)}),
                "metrics": commit_tensors({"loss": 1 / step}, keep=True),
            }
            run.record_step(step, fields)
    for run in runs:
        run.close()
    page = tmp_path / "report.html"
    assert write_report(path, page).status == "refuted"
    browser.open(page)
    marked = browser.evaluate(MARKED)
    assert [key for key in marked if key.startswith("0x")] == [f"{runs[2].worker}/2"]
    second = next(each for each in runs[2].receipts() if each.fields.get("step") == 2)
    assert {f"receipt {second.sequence}", "field gradients"} <= set(marked)
    assert browser.evaluate("document.querySelector('#curves [data-step]').dataset.step") == "2"
    assert not browser.evaluate(GREEN)


def test_a_key_that_expired_since_is_no_dispute(browser: browsers.Browser, tmp_path: Path) -> None:
    """What differs because time has passed, told as a forgery; or a verdict by the writer's clock."""
    run, page = tmp_path / "run", tmp_path / "report.html"
    session = counterfoil.Session(Key.generate(), expires=int(time.time()) + 600)
    with Run.create(run, key=Key.generate(), session=session) as recording:
        recording.record_step(1, {"gradients": commit_tensors({"w": 1.0})})
    written = write_report(run, page)
    later = "const now = Date.now; Date.now = () => now() + 864e5"
    script = browser.call("Page.addScriptToEvaluateOnNewDocument", source=later)
    browser.open(page)
    browser.call("Page.removeScriptToEvaluateOnNewDocument", **script)
    assert written.status == "verified"
    assert not browser.evaluate(GREEN)
    assert "could sign until" in browser.evaluate("document.getElementById('missing').innerText")
    assert browser.evaluate("document.getElementById('difference').hidden")


def test_names_of_strangers_stay_text(browser: browsers.Browser, tmp_path: Path) -> None:
    """A tensor's name that ends a script element, or becomes one."""
    path, page = tmp_path / "run", tmp_path / "report.html"
    recipe = tmp_path / "recipe.py"
    recipe.write_text(HOSTILE)
    stored = {f"w/{HOSTILE}": np.ones(3, np.float32), "\u2028'\"&<!--": np.float32(1)}
    with Run.create(path, spec={HOSTILE: "\u2029<!--<script>"}, recipe=recipe) as run:
        tensors = run.store(stored)
        named = commit_tensors({HOSTILE: 1.5, "text": HOSTILE}, keep=True)
        for step in (1, 2, 3):
            run.record_step(
                step, {"gradients": tensors, "metrics": named, "hyperparameters": named, "environment": named}
            )
            run.record_checkpoint(step, {"parameters": tensors})
    stored_object = run.path / "objects" / tensors.entries[-1].root.hex()
    changed = bytearray(stored_object.read_bytes())
    changed[0] ^= 1
    stored_object.write_bytes(changed)
    assert write_report(path, page).status == "refuted"
    browser.open(page, state="unchecked")
    assert browser.evaluate("document.images.length") == 0
    assert browser.evaluate("document.scripts.length") == 4
    assert HOSTILE in browser.evaluate(TEXT)
    assert not browser.evaluate(GREEN)
    marked = [key for key in browser.evaluate(MARKED) if key.startswith(("parameters/", "gradients/"))]
    assert f"parameters/{tensors.entries[-1].name}" in marked
    is_quiet(browser, page)


def test_the_reader_pins_what_the_writer_did_not(browser: browsers.Browser, tmp_path: Path) -> None:
    """A form that is not asked, or a wrong pin that stays green."""
    page, vectors = tmp_path / "report.html", ROOT / "tests/vectors"
    write_report(vectors / "anchored.counterfoil", page)
    block = json.loads((vectors / "anchored.json").read_text())["blockHash"]
    owner = counterfoil.Record(vectors / "anchored.counterfoil").receipts()[0].signer
    browser.open(page)

    def type_in(**typed: str) -> None:
        browser.evaluate("document.getElementById('pins').open = true")
        for name, value in typed.items():
            browser.evaluate(f"document.getElementById('pin-{name}').value = {json.dumps(value)}")
        browser.evaluate(
            "document.documentElement.dataset.state = 'asked'; document.getElementById('again').click()"
        )
        browser.wait("document.documentElement.dataset.state === 'checked'")

    line = "document.querySelector('[data-line={}]').textContent"
    before = browser.evaluate(line.format("time"))
    type_in(block=block, signer=owner)
    assert "the trusted block" in browser.evaluate(line.format("time")) != before
    assert browser.evaluate(line.format("signer")).startswith("expected")
    type_in(signer=Key.generate().address)
    assert not browser.evaluate(GREEN)
    browser.evaluate(
        "document.getElementById('pin-signer').value = 'nobody'; document.getElementById('again').click()"
    )
    browser.wait("document.getElementById('source').textContent.startsWith('Not checked again')")
    assert not browser.evaluate(GREEN)
    is_quiet(browser, page)


def test_the_saved_bundle_is_the_checked_one(browser: browsers.Browser, tmp_path: Path) -> None:
    """What a careful reader checks elsewhere is another file."""
    page, folder = tmp_path / "report.html", tmp_path / "saved"
    data = exported(EXAMPLE, tmp_path / "bundle")
    write_report(tmp_path / "bundle", page)
    folder.mkdir()
    browser.open(page)
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    browser.evaluate("document.getElementById('download').click()")
    saved = folder / "evidence.counterfoil"
    for _ in range(100):
        if saved.exists() and saved.stat().st_size == len(data):
            break
        browser.wait("new Promise((done) => setTimeout(() => done(true), 50))")
    assert saved.read_bytes() == data
    assert browser.complaints == []


def test_what_a_chain_said_is_told_apart(browser: browsers.Browser, tmp_path: Path, own_home: Path) -> None:
    """A confirmation that the page cannot repeat, shown as its own finding."""
    run, page = tmp_path / "run", tmp_path / "report.html"
    samples.record(run)
    chain = counterfoil.Chain.dev(tmp_path / "chain")
    chain.anchor(run)
    write_report(run, page, chain=chain)
    browser.open(page)
    text = browser.evaluate(TEXT)
    assert f"With chain {chain.chain_id}, the program that wrote this page found" in text
    assert "A chain cannot be asked from here" in text
    assert browser.evaluate("document.getElementById('difference').hidden")
    is_quiet(browser, page)


@pytest.mark.parametrize("lost", ["WebAssembly", "DecompressionStream", "verifier"])
def test_nothing_is_green_that_was_not_checked(
    browser: browsers.Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """A page that shows its writer's verdict as if it had checked."""
    page = tmp_path / "report.html"
    if lost == "verifier":
        monkeypatch.setattr("counterfoil.report.embedded._VERIFIER", tmp_path / "none")
        write_report(EXAMPLE, page)
        browser.open(page, state="unchecked")
    else:
        write_report(EXAMPLE, page)
        script = browser.call("Page.addScriptToEvaluateOnNewDocument", source=f"delete globalThis.{lost}")
        browser.open(page, state="unchecked")
        browser.call("Page.removeScriptToEvaluateOnNewDocument", **script)
    assert not browser.evaluate(GREEN)
    text = browser.evaluate(TEXT)
    assert "Not checked in this browser" in text
    assert "claimed by this page: verified" in text
    is_quiet(browser, page)


def test_without_scripts_nothing_is_claimed(browser: browsers.Browser, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_report(EXAMPLE, page)
    browser.view(1280, 900, scripts=False)
    try:
        browser.call("Page.navigate", url=page.resolve().as_uri())
        browser.wait("document.readyState === 'complete'")
        text = browser.evaluate(TEXT)
    finally:
        browser.view(1280, 900)
    assert "JavaScript is off: nothing was checked" in text
    assert "verified" not in text


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_can_be_read(browser: browsers.Browser, tmp_path: Path, width: int, dark: bool) -> None:
    """A table wider than a phone, a colour that nobody can read, a control without a keyboard."""
    page = tmp_path / "report.html"
    run = Path(shutil.copytree(EXAMPLE, tmp_path / "run"))
    TAMPERINGS["receipt dropped"](run)
    write_report(run, page)
    browser.view(width, 800, dark=dark)
    try:
        browser.open(page)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.evaluate(CONTRAST) == []
        assert browser.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is dark
        reached = browser.evaluate(
            "[...document.querySelectorAll('button, select, input, summary, .scroll')]"
            ".every((each) => each.disabled || each.tabIndex >= 0)"
        )
        assert reached
    finally:
        browser.view(1280, 900)
