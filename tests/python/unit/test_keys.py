"""Keys under a password, in backups and elsewhere; eth-account is the other side."""

import base64
import copy
import functools
import hashlib
import io
import json
import logging
import os
import pickle
import pty
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from Crypto.Cipher import AES
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils import keccak

import counterfoil
import samples
from counterfoil import Key, Record, Run, _native, cli, errors

PASSWORD = "correct horse battery staple"
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
# The command line in a process of its own; there is no other way to give it a terminal.
COMMAND = [sys.executable, "-c", "from counterfoil.cli import main; main()"]


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key folder of this test's own, and no key or password in the environment."""
    folder = tmp_path / "keys"
    monkeypatch.setenv("COUNTERFOIL_HOME", str(folder))
    monkeypatch.delenv("COUNTERFOIL_KEY", raising=False)
    monkeypatch.delenv("COUNTERFOIL_PASSWORD", raising=False)
    return folder


@dataclass
class Done:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


def command(*arguments: object, **environment: str) -> Done:
    """Runs `counterfoil ARGUMENTS` in this process, without a terminal."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["counterfoil", *map(str, arguments)])
        patch.setattr(sys, "stdin", io.StringIO())
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def succeed(*arguments: object, **environment: str) -> Any:
    """What a command says with --json."""
    done = command(*arguments, "--json", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def fail(*arguments: object, **environment: str) -> str:
    """The message of a command that ends with an error about a key."""
    done = command(*arguments, "--json", **environment)
    assert done.returncode == 1, done.stdout + done.stderr
    assert json.loads(done.stdout)["error"] == "key"
    return json.loads(done.stdout)["message"]


def keystore(secret: bytes, password: str, **changes: Any) -> dict[str, Any]:
    """A keystore by hashlib and PyCryptodome, cheap to open."""
    salt, nonce = b"salt", bytes(15) + b"\1"
    derived = hashlib.scrypt(password.encode(), salt=salt, n=2, r=8, p=1, dklen=32)
    ciphertext = AES.new(derived[:16], AES.MODE_CTR, nonce=b"", initial_value=nonce).encrypt(secret)
    parameters = {"dklen": 32, "n": 2, "p": 1, "r": 8, "salt": salt.hex()}
    crypto = {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": nonce.hex()},
        "ciphertext": ciphertext.hex(),
        "kdf": "scrypt",
        "kdfparams": parameters | changes,
        "mac": keccak(derived[16:] + ciphertext).hex(),
    }
    return {"crypto": crypto, "version": 3}


def write(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    path.chmod(0o600)
    return path


# Files of others, and files for others.


def test_what_is_written_here_opens_in_eth_account(tmp_path: Path) -> None:
    """A backup that only this package can read is none when this package is gone."""
    path = tmp_path / "key.json"
    key = Key.generate(path, "päss \N{KEY}")
    secret = Account.decrypt(path.read_text(), "päss \N{KEY}")
    assert Account.from_key(secret).address == key.address
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kdf", ["scrypt", "pbkdf2"])
def test_what_eth_account_writes_opens_here(tmp_path: Path, kdf: str) -> None:
    secrets = [(1).to_bytes(32), (ORDER - 1).to_bytes(32), *(os.urandom(32) for _ in range(20))]
    for number, secret in enumerate(secrets):
        password = os.urandom(number).hex()
        path = write(tmp_path / str(number), Account.encrypt(secret, password, kdf=kdf, iterations=2))
        assert Key.load(path, password).address == Account.from_key(secret).address
        with pytest.raises(errors.KeyRefused, match="wrong password"):
            Key.load(path, password + " ")


@pytest.mark.parametrize("length", [1, 30, 31, 32])
def test_a_key_whose_leading_zeros_were_left_out_opens(tmp_path: Path, length: int) -> None:
    """Early wallets wrote numbers, not 32 bytes: padded on the wrong side, it is another key."""
    secret = bytes(range(7, 7 + length))
    path = write(tmp_path / "key", keystore(secret, "foo"))
    assert Key.load(path, "foo").address == Account.from_key(secret.rjust(32, b"\0")).address


def test_a_decrypted_number_that_is_no_key_is_refused(tmp_path: Path) -> None:
    for number in (0, ORDER, 2**256 - 1):
        with pytest.raises(errors.KeyRefused, match="no private key"):
            Key.load(write(tmp_path / "key", keystore(number.to_bytes(32), "foo")), "foo")


def test_both_forms_load_and_the_environment_has_the_password(
    keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = b"\x11" * 32
    plain = write(tmp_path / "plain", "0x" + secret.hex())
    protected = write(tmp_path / "protected", keystore(secret, PASSWORD))
    address = Account.from_key(secret).address
    assert Key.load(plain).address == address
    with pytest.raises(errors.KeyRefused, match="COUNTERFOIL_PASSWORD") as caught:
        Key.load(protected)
    assert caught.value.where == str(protected)
    monkeypatch.setenv("COUNTERFOIL_PASSWORD", PASSWORD)
    assert Key.load(protected).address == Key.load(plain).address == address
    with pytest.raises(errors.KeyRefused, match="wrong password"):
        Key.load(protected, "another")


def test_limits_name_both_sides(tmp_path: Path) -> None:
    with pytest.raises(errors.KeyRefused) as caught:
        Key.load(write(tmp_path / "key", keystore(b"k" * 32, "foo", n=2**40)), "foo")
    assert caught.value.expected == str(2**30)
    assert caught.value.actual == str((2**40 + 1) * 2**10)


def test_without_memory_for_scrypt_there_is_an_error(tmp_path: Path) -> None:
    """Half a gigabyte that the system does not give must not end the process."""
    path = write(tmp_path / "key", keystore(b"k" * 32, "foo", n=2**19))
    program = (
        "import resource, sys, counterfoil\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (400 << 20, 400 << 20))\n"
        "try: counterfoil.Key.load(sys.argv[1], 'foo')\n"
        "except counterfoil.errors.KeyRefused as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "memory" in done.stdout


def test_a_password_must_be_text_and_have_a_file(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidInput):
        Key.generate(password=PASSWORD)
    with pytest.raises(errors.KeyRefused, match="empty"):
        Key.generate(tmp_path / "key", "")
    for other in (PASSWORD.encode(), PASSWORD + "\udc80", 7):
        with pytest.raises((TypeError, errors.InvalidInput)) as caught:
            Key.load(tmp_path / "key", other)
        assert PASSWORD not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# The device key.


def test_a_protected_key_continues_what_the_plain_one_began(keys: Path, tmp_path: Path) -> None:
    """Protecting a key must not end the runs that it signs."""
    path = tmp_path / "run"
    samples.LeastSquares().record(samples.create(path), 1, 2)
    before = Key.device().address
    said = succeed("key", "protect", COUNTERFOIL_PASSWORD=PASSWORD)
    assert said == {"address": before, "protected": True}
    assert not (keys / "device.key").exists()
    assert (keys / "device.json").stat().st_mode & 0o777 == 0o600
    assert Account.from_key(Account.decrypt((keys / "device.json").read_text(), PASSWORD)).address == before
    with pytest.raises(errors.KeyRefused, match="COUNTERFOIL_PASSWORD"):
        Run.open(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COUNTERFOIL_PASSWORD", PASSWORD)
        with Run.open(path) as run:
            assert run.key.address == before
            run.record_step(run.step + 1, samples.LeastSquares().step(1))
    assert counterfoil.verify(path, signer=before).status == "verified"
    written = (keys / "device.json").read_bytes()
    assert succeed("key", "protect", COUNTERFOIL_PASSWORD=PASSWORD)["address"] == before
    assert "wrong password" in fail("key", "protect", COUNTERFOIL_PASSWORD="another")
    assert (keys / "device.json").read_bytes() == written
    shown = succeed("key", COUNTERFOIL_PASSWORD=PASSWORD)
    assert shown == {"address": before, "folder": str(keys), "protected": True}
    assert "protected by a password" in command("doctor").stdout


def test_an_interrupted_protection_leaves_a_key_and_is_ended_later(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between the two files: both are there, and hold one key."""
    address = Key.device().address
    plain = (keys / "device.key").read_text()
    secret = bytes.fromhex(plain)
    named = {"address": address[2:].lower(), **keystore(secret, PASSWORD)}
    write(keys / "device.json", named)
    assert Key.device().address == address
    assert "in the clear" in command("key").stdout
    doctor = command("doctor")
    assert doctor.returncode == 1
    assert "counterfoil key protect" in doctor.stdout
    assert "wrong password" in fail("key", "protect", COUNTERFOIL_PASSWORD="another")
    assert (keys / "device.key").read_text() == plain, "removed, though nobody can open the other"
    succeed("key", "protect", COUNTERFOIL_PASSWORD=PASSWORD)
    assert not (keys / "device.key").exists()
    monkeypatch.setenv("COUNTERFOIL_PASSWORD", PASSWORD)
    assert Key.device().address == address


def test_two_different_device_keys_are_refused_by_name(keys: Path) -> None:
    """Taking either would sign with a key that its owner does not expect."""
    address = Key.device().address
    other = Account.create()
    cases = [
        {"address": other.address[2:], **keystore(bytes(other.key), PASSWORD)},
        keystore(bytes.fromhex((keys / "device.key").read_text()), PASSWORD),  # names no address
    ]
    for case in cases:
        write(keys / "device.json", case)
        with pytest.raises(errors.KeyRefused, match=r"device\.key with .* and device\.json with") as caught:
            Key.device()
        assert caught.value.expected.lower() == address.lower()
        fail("key", "protect", COUNTERFOIL_PASSWORD=PASSWORD)
    write(keys / "device.json", '{"version": 3')
    with pytest.raises(errors.KeyRefused, match=r"device\.json"):
        Key.device()
    assert len(bytes.fromhex((keys / "device.key").read_text())) == 32


def test_a_kill_during_protect_leaves_a_usable_key(keys: Path) -> None:
    address = Key.device().address
    environment = {**os.environ, "COUNTERFOIL_PASSWORD": PASSWORD}
    program = (
        "import counterfoil; from counterfoil import _native; print(flush=True); _native.protect_device_key()"
    )
    for tenth in range(0, 12, 2):
        with subprocess.Popen(
            [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(tenth / 10)
            process.kill()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COUNTERFOIL_PASSWORD", PASSWORD)
            assert Key.device().address == address
        if not (keys / "device.key").exists():
            (keys / "device.key").write_text(
                Account.decrypt((keys / "device.json").read_text(), PASSWORD).hex()
            )
            (keys / "device.key").chmod(0o600)
            (keys / "device.json").unlink()


def test_a_full_disk_leaves_the_plain_key(keys: Path) -> None:
    address = Key.device().address
    program = (
        "import resource, signal, counterfoil\n"
        "from counterfoil import _native\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: _native.protect_device_key('password')\n"
        "except counterfoil.errors.StorageError as error: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "refused", done.stderr
    assert sorted(path.name for path in keys.iterdir() if path.is_file()) == ["device.key"]
    assert Key.device().address == address


# Backups.


def test_a_backup_opens_elsewhere_and_begins_new_lanes(
    keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Continuing an old lane from a backup would sign a second history."""
    run, file = tmp_path / "run", tmp_path / "backup.json"
    with samples.create(run) as recorded:
        samples.LeastSquares().record(recorded, 1, 2)
    address = Key.device().address
    said = command("key", "backup", file, COUNTERFOIL_PASSWORD=PASSWORD)
    assert said.returncode == 0, said.stderr
    assert address in said.stdout
    assert "Run.join" in said.stdout
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    assert Account.from_key(Account.decrypt(text, PASSWORD)).address == address
    for secret in (keys / "lanes").iterdir():
        assert secret.read_text().strip() not in text
    assert "exists" in fail("key", "backup", file, COUNTERFOIL_PASSWORD=PASSWORD)
    assert file.read_text() == text

    there = succeed("key", "restore", file, COUNTERFOIL_PASSWORD=PASSWORD)
    assert there == {"address": address, "installed": False}
    monkeypatch.setenv("COUNTERFOIL_HOME", str(tmp_path / "elsewhere"))
    assert "wrong password" in fail("key", "restore", file, COUNTERFOIL_PASSWORD="another")
    said = command("key", "restore", file, COUNTERFOIL_PASSWORD=PASSWORD)
    assert said.returncode == 0, said.stderr
    assert address in said.stdout
    assert "Run.join" in said.stdout
    assert not succeed("key", "restore", file, COUNTERFOIL_PASSWORD=PASSWORD)["installed"]
    monkeypatch.setenv("COUNTERFOIL_PASSWORD", PASSWORD)
    assert Key.device().address == address
    with pytest.raises(errors.KeyRefused, match=r"Run\.join"):
        Run.open(run)
    with Run.join(run, lane=1) as joined:
        assert joined.key.address == address
    assert counterfoil.verify(run, signer=address).status == "verified"


def test_restoring_replaces_no_other_key(keys: Path, tmp_path: Path) -> None:
    other = Account.create()
    file = write(tmp_path / "other.json", Account.encrypt(other.key, PASSWORD, kdf="scrypt", iterations=2))
    mine = Key.device().address
    for name in ("device.key", "device.json"):
        before = (keys / name).read_bytes()
        message = fail("key", "restore", file, COUNTERFOIL_PASSWORD=PASSWORD)
        assert mine.lower() in message.lower()
        assert other.address.lower() in message.lower()
        assert (keys / name).read_bytes() == before
        succeed("key", "protect", COUNTERFOIL_PASSWORD=PASSWORD)
    plain = write(tmp_path / "plain", bytes(other.key).hex())
    assert str(plain) in fail("key", "restore", plain, COUNTERFOIL_PASSWORD=PASSWORD)


def test_every_command_says_where_the_password_comes_from(keys: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "key.json", keystore(b"k" * 32, PASSWORD))
    for arguments in (["protect"], ["backup", tmp_path / "new"], ["restore", file]):
        assert "COUNTERFOIL_PASSWORD" in fail("key", *arguments)
        assert "COUNTERFOIL_PASSWORD" in fail("key", *arguments, COUNTERFOIL_PASSWORD="")
    assert not (tmp_path / "new").exists()
    assert not (keys / "device.json").exists()


def test_the_files_stay_while_another_key_is_in_the_environment(keys: Path, tmp_path: Path) -> None:
    """Else `protect` would encrypt the one and leave its owner believing that it was the other."""
    Key.device()
    file = write(tmp_path / "key.json", keystore(b"k" * 32, PASSWORD))
    environment = {"COUNTERFOIL_KEY": "22" * 32, "COUNTERFOIL_PASSWORD": PASSWORD}
    assert "COUNTERFOIL_KEY" in fail("key", "protect", **environment)
    assert "COUNTERFOIL_KEY" in fail("key", "restore", file, **environment)
    assert (keys / "device.key").exists()
    assert not (keys / "device.json").exists()
    expected = Account.from_key("22" * 32).address
    assert succeed("key", **environment)["address"] == expected
    succeed("key", "backup", tmp_path / "new.json", **environment)
    secret = Account.decrypt((tmp_path / "new.json").read_text(), PASSWORD)
    assert Account.from_key(secret).address == expected


def type_in(arguments: list[object], lines: list[str]) -> tuple[int, str]:
    """Runs a command at a terminal and types a line at each prompt: exit code and what it shows."""
    mine, its = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdin=its, stdout=its, stderr=its, start_new_session=True
    ) as process:
        os.close(its)
        shown, answered = "", 0
        while True:
            try:
                shown += os.read(mine, 4096).decode()
            except OSError:  # the other side is closed
                break
            if shown.count(": ") > answered < len(lines):
                time.sleep(0.2)  # the echo is switched off around the prompt
                os.write(mine, lines[answered].encode() + b"\n")
                answered += 1
        os.close(mine)
        assert answered == len(lines), shown
        return process.wait(60), shown


def test_at_a_terminal_the_password_is_typed_and_not_shown(keys: Path) -> None:
    address = Key.device().address
    code, shown = type_in(["key", "protect"], [PASSWORD, PASSWORD])
    assert code == 0, shown
    assert address in shown
    assert PASSWORD not in shown
    code, shown = type_in(["key"], [PASSWORD])
    assert (code, address in shown, PASSWORD in shown) == (0, True, False), shown
    code, shown = type_in(["key"], ["another"])
    assert (code, "another" in shown, "wrong password" in shown) == (1, False, True), shown


# Signers elsewhere.


class Wallet:
    """A signer elsewhere: eth-account, with a change to what it answers."""

    def __init__(self, change: Callable[[bytes], object] = bytes) -> None:
        self.account = Account.create()
        self.change = change
        self.asked: list[tuple[bytes, dict[str, Any] | None]] = []

    def __call__(self, digest: bytes, typed_data: dict[str, Any] | None) -> Any:
        self.asked.append((digest, typed_data))
        return self.change(bytes(self.account.unsafe_sign_hash(digest).signature))

    @property
    def key(self) -> Key:
        return Key.external(self.account.address, self)


def high_s(signature: bytes) -> bytes:
    s = ORDER - int.from_bytes(signature[32:64])
    return signature[:32] + s.to_bytes(32) + bytes([55 - signature[64]])


FORMS: dict[str, Callable[[bytes], object]] = {
    "r, s, v": bytes,
    "r, s": lambda s: s[:64],
    "v of 0 and 1": lambda s: s[:64] + bytes([s[64] - 27]),
    "high s": high_s,
    "high s without v": lambda s: high_s(s)[:64],
    "high s with v of 0 and 1": lambda s: high_s(s)[:64] + bytes([high_s(s)[64] - 27]),
    "a bytearray": bytearray,
}


@pytest.mark.parametrize("change", FORMS.values(), ids=FORMS.keys())
def test_an_external_signer_records_a_run(keys: Path, tmp_path: Path, change: Any) -> None:
    """Services and cards differ in s and v; what is stored is the one form that verifies."""
    wallet = Wallet(change)
    assert wallet.key.address == wallet.account.address
    samples.record(tmp_path / "run", 6, key=wallet.key)
    assert counterfoil.verify(tmp_path / "run", signer=wallet.account.address).status == "verified"
    assert not (keys / "device.key").exists()


def test_an_external_signer_sees_the_message_it_signs(keys: Path, tmp_path: Path) -> None:
    """A wallet that shows 32 bytes shows nothing: the digest must be that of the typed data."""
    wallet = Wallet()
    samples.record(tmp_path / "run", 2, key=wallet.key)
    kinds = []
    for digest, typed_data in wallet.asked:
        assert typed_data is not None
        signed = wallet.account.sign_message(encode_typed_data(full_message=typed_data))
        assert bytes(signed.message_hash) == digest
        kinds.append(typed_data["primaryType"])
    digests = [receipt.digest for receipt in Record(tmp_path / "run").receipts()]
    assert [digest for digest, _ in wallet.asked][: len(digests)] == digests
    assert len(kinds) == len(digests) + 1, "receipts, and the last tree head"


def test_an_external_signer_pays_for_an_anchor(keys: Path, tmp_path: Path) -> None:
    wallet = Wallet()
    samples.record(tmp_path / "run", 2, key=wallet.key)
    chain = counterfoil.Chain.dev(tmp_path / "chain")
    wallet.asked.clear()
    chain.anchor(tmp_path / "run", wallet.key)
    assert [typed_data for _, typed_data in wallet.asked] == [None] * len(wallet.asked) != []
    with Run.open(tmp_path / "run", key=wallet.key) as run:
        run.record_step(3, samples.LeastSquares().step(3))
    wallet.change = raising(OSError("the card was removed"))
    with pytest.raises(errors.KeyRefused, match="the card was removed"):
        chain.anchor(tmp_path / "run", wallet.key)


def raising(error: BaseException) -> Callable[[bytes], object]:
    def change(_: bytes) -> object:
        raise error

    return change


REFUSED: dict[str, tuple[Callable[[bytes], object], str]] = {
    "another key": (lambda _: bytes(Account.create().unsafe_sign_hash(bytes(32)).signature), "that of"),
    "the other v": (lambda s: s[:64] + bytes([55 - s[64]]), "that of"),
    "63 bytes": (lambda s: s[:63], "64 or 65 bytes, found 63"),
    "66 bytes": (lambda s: s + b"\0", "64 or 65 bytes, found 66"),
    "nothing": (lambda _: None, "NoneType"),
    "text": (lambda s: s.hex(), "str"),
    "zeros": (lambda _: bytes(65), "scalar"),
    "an exception": (raising(OSError("the card was removed")), "OSError: the card was removed"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_signature_records_nothing(keys: Path, tmp_path: Path, case: Any) -> None:
    """A receipt that does not verify, once written, would spoil the whole lane."""
    change, message = case
    wallet = Wallet()
    training = samples.LeastSquares()
    with samples.create(tmp_path / "run", key=wallet.key) as run:
        training.record(run, 1, 2)
        fields = training.step(3)
        run.flush()
        journal = samples.journal(tmp_path / "run")
        before = journal.read_bytes()
        wallet.change = change
        with pytest.raises(errors.KeyRefused, match=message) as caught:
            run.record_step(3, fields)
        assert caught.value.code == "key"
        if message == "that of":
            assert caught.value.expected.lower() == wallet.account.address.lower()
            assert caught.value.actual.lower() != wallet.account.address.lower()
        cause = caught.value.__cause__
        assert isinstance(cause, OSError) == (message.startswith("OSError"))
        run.flush()
        assert journal.read_bytes() == before
        assert run.step == 2
        wallet.change = bytes
        run.record_step(3, fields)
        with pytest.raises(errors.InvalidInput) as caught:
            run.record_step(7, {})
        assert caught.value.__cause__ is None, "an exception of an earlier call"
    assert counterfoil.verify(tmp_path / "run").status == "verified"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_a_signer_interrupts(keys: Path, tmp_path: Path, kind: type[BaseException]) -> None:
    """Ctrl-C while a card waits for its button is no refusal of the card."""
    wallet = Wallet(raising(kind()))
    with pytest.raises(kind):
        samples.create(tmp_path / "run", key=wallet.key)


def test_what_cannot_sign_is_refused_before_it_is_asked() -> None:
    address = Account.create().address
    for arguments in ((address, None), (address, "sign"), ("", Wallet()), (address[:-1], Wallet())):
        with pytest.raises(errors.InvalidInput):
            Key.external(*arguments)


def test_threads_that_share_a_signer_do_not_wait_for_each_other_forever(keys: Path, tmp_path: Path) -> None:
    """The callable needs the interpreter while the writer holds its lane: in the wrong order, a deadlock."""
    wallet = Wallet()
    key = wallet.key
    with samples.create(tmp_path / "run", key=key) as run:
        joined = [Run.join(tmp_path / "run", lane=lane, key=key) for lane in (1, 2, 3)]
        flushers = [threading.Thread(target=_flush, args=(each, 200), daemon=True) for each in (run, *joined)]
        workers = [
            threading.Thread(target=samples.LeastSquares().record, args=(each, 1, 12), daemon=True)
            for each in (run, *joined)
        ]
        for thread in (*workers, *flushers):
            thread.start()
        for thread in (*workers, *flushers):
            thread.join(60)
            assert not thread.is_alive()
        for each in joined:
            each.close()
    assert counterfoil.verify(tmp_path / "run").status == "verified"


def _flush(run: Run, times: int) -> None:
    for _ in range(times):
        run.flush()


# What must never be seen.

SECRET = hashlib.sha256(b"a key that must not be seen").digest()


def tell(error: BaseException, out: list[str]) -> None:
    """Everything that a program may do with an error."""
    text = "".join(traceback.format_exception(error))
    out.extend([text, repr(error), str(error), f"{error}", repr(error.args), repr(vars(error))])
    logging.getLogger("keys").error("failed", exc_info=error)


def forms(secret: bytes) -> list[str]:
    """The ways in which bytes get into texts, and long parts of them."""
    digits = secret.hex()
    parts = [digits[:24], digits[-24:], digits[20:44]]
    return [*parts, str(int.from_bytes(secret)), base64.b64encode(secret).decode(), repr(secret)[2:-1]]


def test_no_secret_is_ever_seen(
    keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every way to an error about a key, every way to look at one, and all that is printed meanwhile."""
    monkeypatch.setenv("RUST_BACKTRACE", "1")
    digits, out = SECRET.hex(), []
    plain = write(tmp_path / "plain", digits)
    opened = write(tmp_path / "opened", digits)
    opened.chmod(0o644)
    protected = write(tmp_path / "protected", keystore(SECRET, PASSWORD))
    with samples.create(tmp_path / "run", key=Key.load(plain)) as run:
        samples.LeastSquares().record(run, 1, 2)
        lane = bytes.fromhex(next((keys / "lanes").iterdir()).read_text())

    key = Key.load(plain)
    out += [repr(key), str(key), f"{key}", format(key), repr(dir(key)), repr(vars(type(key)))]
    out += [repr([getattr(key, name) for name in dir(key)]), repr(run), str(run)]
    damaged: list[object] = [
        digits[:-1], digits + "0", digits + " x", digits.upper()[:-2] + "zz", "0x0x" + digits, f'"{digits}"',
        f"[{digits}", '{"a": ' + digits, '{"a": ' + str(int.from_bytes(SECRET)) + "}", "{" + digits,
        {"crypto": digits}, {"version": digits}, {"version": 3, "crypto": {"cipher": digits}},
        {"version": 3, digits: 1, "crypto": digits}, f'{{"{digits}": 1, "{digits}": 2}}',
        keystore(SECRET, PASSWORD, dklen=digits), keystore(SECRET, PASSWORD, salt=digits + "x"),
        {"address": digits, **keystore(SECRET, PASSWORD)}, {"address": "11" * 20, **keystore(SECRET, PASSWORD)},
    ]  # fmt: skip
    attempts: list[Callable[[], object]] = [
        lambda: Key.load(opened),
        lambda: Key.load(tmp_path),
        lambda: Key.load(protected),
        lambda: Key.load(protected, PASSWORD + "x"),
        lambda: Key.load(protected, PASSWORD.encode()),
        lambda: Key.load(protected, PASSWORD + "\udc80"),
        lambda: Key.generate(protected, PASSWORD),
        lambda: Key.generate(password=PASSWORD),
        lambda: Key.generate(tmp_path / "no" / "folder", PASSWORD),
        lambda: Key(SECRET),
        lambda: pickle.dumps(key),
        lambda: copy.copy(key),
        lambda: copy.deepcopy({"key": key}),
        lambda: json.dumps(key),
        lambda: bytes(key),
        lambda: key.secret,
        lambda: Key.external(digits, print),
        lambda: samples.create(tmp_path / "other", key=Key.external(key.address, lambda *_: bytes(65))),
        lambda: _native.restore_device_key(opened, PASSWORD),
        lambda: _native.restore_device_key(protected, PASSWORD + "x"),
        lambda: _native.back_up_device_key(plain, PASSWORD),
    ]
    for number, text in enumerate(damaged):
        attempts.append(functools.partial(Key.load, write(tmp_path / f"d{number}", text), PASSWORD))
    for attempt in attempts:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is, it shows nothing
            attempt()
        tell(caught.value, out)
    monkeypatch.setenv("COUNTERFOIL_KEY", digits + "0")
    with pytest.raises(errors.KeyRefused) as caught:
        Key.device()
    tell(caught.value, out)
    monkeypatch.delenv("COUNTERFOIL_KEY")

    (keys / "device.key").write_text(digits)
    (keys / "device.key").chmod(0o640)
    commands: list[tuple[list[object], dict[str, str]]] = [
        (["key"], {}),
        (["key", "protect"], {"COUNTERFOIL_PASSWORD": PASSWORD}),
        (["key", "backup", tmp_path / "b0"], {"COUNTERFOIL_PASSWORD": PASSWORD}),
        (["key"], {"COUNTERFOIL_KEY": digits}),
        (["key"], {"COUNTERFOIL_KEY": digits[1:]}),
        (["key", "restore", opened], {"COUNTERFOIL_PASSWORD": PASSWORD}),
        (["key", "restore", tmp_path / "d5"], {"COUNTERFOIL_PASSWORD": PASSWORD}),
        (["key", "restore", protected], {"COUNTERFOIL_PASSWORD": PASSWORD + "x"}),
        (["anchor", tmp_path / "run", "--key", opened], {}),
        (["anchor", tmp_path / "run", "--key", protected], {"COUNTERFOIL_PASSWORD": PASSWORD + "x"}),
        (["doctor", tmp_path / "run"], {}),
        (["inspect", tmp_path / "run"], {}),
    ]
    for arguments, environment in commands:
        for extra in ([], ["--json"]):
            done = command(*arguments, *extra, **environment)
            out += [done.stdout, done.stderr]
            assert done.stdout + done.stderr
    (keys / "device.key").chmod(0o600)
    for arguments in (["key"], ["key", "backup", tmp_path / "b1"], ["key", "protect"], ["key"]):
        done = command(*arguments, "--json", COUNTERFOIL_PASSWORD=PASSWORD)
        assert done.returncode == 0, done.stderr
        out += [done.stdout, done.stderr]

    captured = capfd.readouterr()
    seen = "\n".join([*out, captured.out, captured.err]).casefold()
    assert "traceback" in seen
    for needle in [PASSWORD, *forms(SECRET), *forms(lane)]:
        assert needle.casefold() not in seen, seen[max(0, seen.index(needle.casefold()) - 300) :][:600]
