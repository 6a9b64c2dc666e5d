"""The command line: its exit codes are an interface, and none of them lies."""

import hashlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import counterfoil
import forgery
import samples
from counterfoil import cli
from counterfoil.fingerprints import published


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs `counterfoil ARGUMENTS` in this process: (exit code, standard output, error output)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["counterfoil", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return run


def every_file(folder: Path) -> dict[Path, str]:
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()
    }


def test_verified_is_0(command, recorded: Path) -> None:
    code, out, _ = command("verify", recorded)
    assert code == 0
    assert out.startswith("verified: integrity only")


def test_refuted_is_3(command, copy: Path) -> None:
    forgery.change_receipt(copy, 4, lambda receipt: replace(receipt, digest=bytes(32)))
    code, out, _ = command("verify", copy)
    assert code == 3
    assert out.startswith("refuted")
    code, out, _ = command("verify", copy, "--json")
    assert code == 3
    assert json.loads(out)["status"] == "refuted"


def test_a_sample_that_may_have_been_used_is_4(command, tmp_path: Path) -> None:
    fed = counterfoil.commit_tensors({"0/index": np.array([3, 4])}, keep=True)
    dataset = counterfoil.commit_tensors({"content": np.zeros((5, 32), np.uint8)}, keep=True)
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.record_step(1, {"samples": fed})
    assert command("uses", run.path, 3)[:2] == (
        0, "used at steps 1\n  not shown: which samples are equal: no dataset is committed or shown\n",
    )  # fmt: skip
    code, out, _ = command("uses", run.path, 2, "--json")
    assert (code, json.loads(out)["steps"]) == (4, [])
    assert command("uses", run.path, "0xzz")[0] == 2
    with counterfoil.Run.create(tmp_path / "known", dataset=dataset) as run:
        run.record_step(1, {"samples": fed})
    assert command("uses", run.path, "11" * 32)[:2] == (0, "never used in the 1 steps of the lanes shown\n")


def test_attacks_touch_no_key_of_the_user(command, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A board that signs its forgeries with the device key, or calls an attack caught that is none."""
    before = every_file(home)
    code, out, _ = command("attacks", "torn-tail", "second-preimage")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines() if "caught" in line] == [
        ["torn-tail", "caught"], ["second-preimage", "caught"], ["2", "caught"],
    ]  # fmt: skip
    assert every_file(home) == before
    assert os.environ["COUNTERFOIL_HOME"] == str(home)
    code, _, err = command("attacks", "torn-tails")
    assert code == 1
    assert "there is no attack torn-tails; did you mean torn-tail?" in err
    assert "there is no attack nothing; there are" in command("attacks", "nothing")[2]
    monkeypatch.setattr("counterfoil.attacks.second_preimage.undefended", lambda case: "seen")
    code, out, _ = command("attacks", "second-preimage", "--json")
    assert (code, [row["outcome"] for row in json.loads(out)]) == (1, ["broken"])


def test_environments_are_shown_and_compared(command, tmp_path: Path) -> None:
    paths = []
    for threads in (1, 2):
        with counterfoil.Run.create(tmp_path / str(threads)) as run:
            used = counterfoil.commit_tensors({"threads": threads, "torch": "2.15"}, keep=True)
            run.record_checkpoint(0, {"environment": used})
        paths.append(run.path)
    assert command("environment", paths[0])[1].split() == ["threads", "1", "torch", "2.15"]
    assert command("environment", *paths)[1].split() == ["threads", "1", "|", "2"]
    assert json.loads(command("environment", *paths, "--json")[1]) == {"threads": [1, 2]}
    assert command("environment", paths[0], paths[0])[1] == "nothing differs\n"


def test_the_first_difference_is_3_and_what_was_not_compared_4(command, tmp_path: Path) -> None:
    """A program that asks whether two runs are equal must not take a gap for a yes."""
    loss = {"metrics": counterfoil.commit_tensors({"loss": 0.5}, keep=True)}
    for name, fields in (
        ("one", loss),
        ("same", loss),
        ("more", {**loss, "batch": counterfoil.commit_tensors({"x": 1.0})}),
        ("other", {"metrics": counterfoil.commit_tensors({"loss": 0.25}, keep=True)}),
    ):
        with counterfoil.Run.create(tmp_path / name) as run:
            run.record_step(1, fields)
    one = tmp_path / "one"
    assert command("diff", one, tmp_path / "same")[:2] == (0, "nothing differs in 1 step (2 fields)\n")
    code, out, _ = command("diff", one, tmp_path / "other", "--json")
    assert (code, json.loads(out)["first"]["theirs"]) == (3, "0.25 (0x3fd0000000000000)")
    code, out, _ = command("diff", one, tmp_path / "more")
    assert code == 4
    assert out.endswith("not compared: batch of 1 step: only one record commits to them\n")
    assert command("diff", one, tmp_path / "missing")[0] == 1


def test_undecided_is_4(command, recorded: Path) -> None:
    code, out, _ = command("verify", recorded, "--require", "stranger")
    assert code == 4
    assert out.startswith("undecided")


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify"],
        ["verify", "run", "--require", "nothing"],
        ["verify", "run", "--unheard-of"],
        ["unheard-of"],
        ["replay"],
        ["demo", "runs", "elsewhere"],
        ["chain", "serve", "--port", "70000"],
    ],
    ids=" ".join,
)
def test_usage_is_2(command, arguments: list[str]) -> None:
    assert command(*arguments)[0] == 2


def test_an_error_is_1(command, tmp_path: Path) -> None:
    code, out, err = command("verify", tmp_path / "nowhere")
    assert (code, out) == (1, "")
    assert "nowhere" in err
    code, out, _ = command("verify", tmp_path / "nowhere", "--json")
    assert code == 1
    assert json.loads(out)["error"] == "not-found"


def test_a_fault_of_this_program_is_1_and_no_accusation(
    command, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug must not end with the exit code of a refutation, nor with a traceback."""

    def fault(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(counterfoil, "verify", fault)
    code, out, err = command("verify", recorded)
    assert (code, out) == (1, "")
    assert "RuntimeError: a bug" in err
    assert "fault of this program" in err
    assert "Traceback" not in err


def test_the_signer_and_the_recipe_are_pinned(command, recorded: Path) -> None:
    record = counterfoil.Record(recorded)
    owner = record.receipts()[0].signer
    pins = ["--signer", owner, "--recipe", record.recipe_digest]
    assert command("verify", recorded, *pins)[0] == 0
    assert command("verify", recorded, "--signer", "0x" + "11" * 20)[0] == 3


def test_inspect_lists_receipts(command, recorded: Path) -> None:
    code, out, _ = command("inspect", recorded)
    assert code == 0
    assert "genesis" in out
    assert "checkpoint" in out
    code, out, _ = command("inspect", recorded, "--json")
    shown = json.loads(out)
    assert [each["sequence"] for each in shown["receipts"]] == list(range(17))
    assert shown["spec"]["model"] == "least squares"


def test_key_shows_the_address_and_never_the_key(command, home: Path) -> None:
    for arguments in (["key"], ["key", "--json"]):
        code, out, err = command(*arguments)
        assert code == 0
        assert counterfoil.Key.device().address in out
        assert samples.device_key(home).hex() not in out + err


def test_anchor_uses_the_development_chain(command, copy: Path, tmp_path: Path) -> None:
    code, out, _ = command("anchor", copy, "--folder", tmp_path / "chain", "--json")
    assert code == 0
    assert int(json.loads(out)["size"]) == 17
    code, out, _ = command("verify", copy)
    assert code == 0
    assert "self-anchored" in out


def test_doctor_reports_and_repairs_nothing(command, tmp_path: Path, home: Path) -> None:
    run = tmp_path / "run"
    samples.record(run)
    code, out, _ = command("doctor", run)
    assert code == 0, out
    assert "agrees with hashlib" in out
    path = samples.journal(run)
    path.write_bytes(path.read_bytes()[:-5])
    next((run / "objects").iterdir()).unlink()
    before = every_file(run) | every_file(home)
    code, out, _ = command("doctor", run, "--json")
    assert code == 1
    bad = {each["what"] for each in json.loads(out) if not each["ok"]}
    assert bad == {"journal", "objects"}
    assert every_file(run) | every_file(home) == before


def found(command, *arguments: object) -> tuple[int, dict[str, str], set[str]]:
    """Exit code, details by name and names that are not right, of `doctor`."""
    code, out, _ = command("doctor", *arguments, "--json")
    findings = json.loads(out)
    details = {each["what"]: each["detail"] for each in findings}
    return code, details, {each["what"] for each in findings if not each["ok"]}


def test_doctor_names_an_unfinished_secret(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in the clear that a killed process left behind, and that nobody looks for."""
    monkeypatch.setenv("COUNTERFOIL_HOME", str(tmp_path / "home"))
    (tmp_path / "home/lanes").mkdir(parents=True)
    (tmp_path / "home/lanes/device.key.0123456789abcdef.partial").touch(0o600)
    code, out, _ = command("doctor", "--json")
    bad = [each for each in json.loads(out) if not each["ok"]]
    assert (code, [each["what"] for each in bad]) == (1, ["unfinished write"])
    assert "device.key.0123456789abcdef.partial" in bad[0]["detail"]


def test_doctor_repairs_an_unfinished_write_and_says_what_it_dropped(command, tmp_path: Path) -> None:
    """Nothing but the torn end may go: it is a tree head's, so every receipt stays."""
    run = tmp_path / "run"
    samples.record(run)
    path = samples.journal(run)
    path.write_bytes(path.read_bytes()[:-5])
    torn = path.stat().st_size
    before = every_file(run)
    code, details, bad = found(command, run, "--repair")
    dropped = torn - path.stat().st_size
    assert (code, bad) == (0, set())
    assert dropped > 0
    assert f"17 receipts, 0 tree heads; dropped {dropped} bytes" in details["journal"]
    assert {name for name, digest in every_file(run).items() if before[name] != digest} == {path}
    assert "whole" in found(command, run, "--repair")[1]["journal"]
    assert counterfoil.verify(run).integrity.startswith("intact")


def test_doctor_repairs_nothing_of_a_lane_that_has_lost_receipts(command, tmp_path: Path) -> None:
    """A damaged end of durable receipts looks torn: cutting it off would destroy them."""
    run = tmp_path / "run"
    samples.record(run)
    path = samples.journal(run)
    path.write_bytes(path.read_bytes()[:-1500])
    before = every_file(run)
    code, details, bad = found(command, run, "--repair")
    assert (code, bad) == (1, {"journal", "released"})
    assert "17 receipts" in details["released"]
    assert "left there" in details["journal"]
    assert every_file(run) == before


def test_doctor_repairs_no_damage(command, copy: Path) -> None:
    path = samples.journal(copy)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    code, details, bad = found(command, copy, "--repair")
    assert code == 1
    assert "journal" in bad
    assert "corrupt" in details["journal"]
    assert path.read_bytes() == data


def test_doctor_waits_for_no_writer(command, tmp_path: Path) -> None:
    """What looks torn while a writer lives may be its next group."""
    run = samples.create(tmp_path / "run")
    path = samples.journal(tmp_path / "run")
    path.write_bytes(path.read_bytes() + b"half a frame")
    code, details, bad = found(command, tmp_path / "run", "--repair")
    assert (code, bad) == (1, {"journal"})
    assert "written by another process" in details["journal"]
    os.truncate(path, path.stat().st_size - len(b"half a frame"))
    run.close()


def test_doctor_repairs_a_run_and_not_an_installation(command) -> None:
    assert command("doctor", "--repair")[0] == 2


def test_doctor_names_the_file_system_and_warns_of_a_network(
    command, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mount with the longest path counts, and its name may hold a blank."""
    if not Path("/proc/mounts").exists():
        pytest.skip("there is no /proc/mounts here to read")
    assert "warning" not in found(command, recorded)[1]["file system"]
    blank = str(recorded.resolve()).replace(" ", "\\040")
    lines = f"/dev/a / ext4 rw 0 0\nserver:/runs {blank} nfs4 rw 0 0\n"
    read = Path.read_text
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda path, **how: lines if path == Path("/proc/mounts") else read(path, **how),
    )
    detail = found(command, recorded)[1]["file system"]
    assert detail.startswith("nfs4; warning")


def test_doctor_sees_an_exposed_key(command, home: Path) -> None:
    counterfoil.Key.device()
    key = home / "device.key"
    key.chmod(0o640)
    try:
        code, out, _ = command("doctor")
    finally:
        key.chmod(0o600)
    assert code == 1
    assert "chmod 600" in out


def test_every_command_has_one_sentence_of_help(command) -> None:
    code, out, _ = command("--help")
    assert code == 0
    for name in ("demo", "verify", "replay", "inspect", "anchor", "key", "doctor", "chain"):
        assert name in out
        assert command(name, "--help")[0] == 0


def test_fingerprints_are_signed_from_the_command_line(command, tmp_path: Path) -> None:
    """Options that are dropped on the way would sign other steps, or under another key."""
    run = tmp_path / "run"
    with counterfoil.Run.create(run) as recorded:
        for step in (1, 2, 3):
            recorded.record_step(step, {"gradients": recorded.store({"w": np.full(5, step / 4)})})
    assert command("fingerprint", run, "--steps", "1,3", "--key", "0x" + "07" * 32)[0] == 0
    found = published(counterfoil.Record(run))
    steps = [each.digest for each in counterfoil.Record(run).receipts() if each.kind == "step"]
    assert set(found) == {(steps[0], b"\x07" * 32), (steps[2], b"\x07" * 32)}
    code, output, _ = command("fingerprint", run)
    assert code == 0 and output.startswith("3 fingerprints")
    assert command("verify", run)[0] == 0
    assert command("fingerprint", run, "--key", "0x07")[0] == 2


def test_a_recipe_is_read_and_pinned_from_the_command_line(command, recorded: Path, tmp_path: Path) -> None:
    """A bundle has no folder to read its recipe in; a path in the digest's place was a parser's message."""
    bundle = tmp_path / "x.counterfoil"
    counterfoil.export(recorded, bundle)
    code, out, _ = command("inspect", bundle, "--recipe")
    assert code == 0 and (recorded / "recipe/recipe.py").read_text() in out
    code, _, err = command("replay", bundle)
    assert code == 1 and f"counterfoil inspect {bundle} --recipe" in err
    code, _, err = command("verify", bundle, "--recipe", "recipe.py")
    assert code == 1 and "'recipe.py' is no digest of a recipe" in err
