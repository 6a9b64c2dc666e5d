"""Contracts of any interface, with eth_abi and web3.py as independent witnesses."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from eth_abi import encode as oracle_encode
from eth_utils import to_checksum_address
from hypothesis import given, settings
from hypothesis import strategies as st
from web3 import HTTPProvider, Web3

from chains import anvil, needs_anvil
from counterfoil import Key, _native, errors
from counterfoil._native import Interface
from counterfoil.chain import Chain
from counterfoil.contracts import Contract

ROOT = Path(__file__).parents[3]
TILL = (ROOT / "crates/devchain/tests/vectors/Till.json").read_text()


def interface_of(kind: dict[str, Any]) -> Interface:
    function = {
        "type": "function",
        "name": "f",
        "stateMutability": "view",
        "inputs": [kind],
        "outputs": [kind],
    }
    return Interface(json.dumps({"contract": "T", "abi": [function]}))


def drawn(dice: random.Random, depth: int) -> tuple[dict[str, Any], str, Any, Any, Any]:
    """A random type and value: its ABI, its canonical name, the value for the oracle, for JSON, and as read."""
    shapes = ["uint", "int", "address", "bool", "fixed", "bytes", "string"]
    shape = dice.choice(shapes if depth == 0 else ["list", "array", "tuple"])
    if shape in ("uint", "int"):
        bits = 8 * dice.randint(1, 32)
        low, high = (0, 2**bits - 1) if shape == "uint" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        value = dice.choice([low, high, 0, dice.randint(low, high)])
        return {"name": "x", "type": f"{shape}{bits}"}, f"{shape}{bits}", value, str(value), value
    if shape == "address":
        text = to_checksum_address("0x" + dice.randbytes(20).hex())
        return {"name": "x", "type": "address"}, "address", text, text, text
    if shape == "bool":
        value = dice.random() < 0.5
        return {"name": "x", "type": "bool"}, "bool", value, value, value
    if shape == "string":
        text = "".join(dice.choice("aß\u20ac\U0001f600\0") for _ in range(dice.randint(0, 50)))
        return {"name": "x", "type": "string"}, "string", text, text, text
    if shape in ("fixed", "bytes"):
        size = dice.randint(1, 32)
        raw = dice.randbytes(size if shape == "fixed" else dice.randint(0, 70))
        name = f"bytes{size}" if shape == "fixed" else "bytes"
        return {"name": "x", "type": name}, name, raw, "0x" + raw.hex(), raw
    if shape == "tuple":
        parts = [drawn(dice, depth - 1 if n == 0 else 0) for n in range(dice.randint(1, 4))]
        kinds = [{**part[0], "name": f"c{n}"} for n, part in enumerate(parts)]
        by_name = {f"c{n}": part[3] for n, part in enumerate(parts)}
        given = by_name if dice.random() < 0.5 else [part[3] for part in parts]
        read = {f"c{n}": part[4] for n, part in enumerate(parts)}
        name = "(" + ",".join(part[1] for part in parts) + ")"
        return (
            {"name": "x", "type": "tuple", "components": kinds},
            name,
            tuple(p[2] for p in parts),
            given,
            read,
        )
    state = dice.getstate()
    size = dice.randint(0, 3) if shape == "list" else dice.randint(1, 3)
    end = "[]" if shape == "list" else f"[{size}]"
    kind, name, *values = drawn(dice, depth - 1)
    dice.setstate(state)
    dice.random()
    return {**kind, "type": kind["type"] + end}, name + end, *([value] * size for value in values)


@pytest.mark.parametrize("seed", range(200))
def test_encoding_is_that_of_eth_abi(seed: int) -> None:
    """A type whose bytes other people read differently, or whose value comes back as another one."""
    kind, name, value, given, read = drawn(random.Random(seed), seed % 4)
    interface, expected = interface_of(kind), oracle_encode([name], [value])
    data = interface.encode("f", json.dumps([given]))
    assert data == Web3.keccak(text=f"f({name})")[:4] + expected
    assert interface.decode("f", 1, expected) == read


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("uint8", "256"),
        ("uint8", "-1"),
        ("uint8", "0x1"),
        ("uint8", 1.5),
        ("uint256", str(2**256)),
        ("int8", "128"),
        ("int8", "-129"),
        ("bool", "1"),
        ("address", "0x12"),
        ("address", "12"),
        ("bytes4", "0x010203"),
        ("bytes", "0x0"),
        ("bytes", "00"),
        ("string", None),
        ("uint8[2]", ["1"]),
        ("uint8[]", ["1", "256"]),
    ],
)
def test_a_value_that_does_not_fit_names_its_place(kind: str, given: Any) -> None:
    """A value is cut, padded or wrapped around to fit, and money goes elsewhere."""
    with pytest.raises(errors.InvalidInput) as refused:
        interface_of({"name": "x", "type": kind}).encode("f", json.dumps([given]))
    assert refused.value.expected
    assert refused.value.actual
    assert (refused.value.where or "").startswith(f"f({kind}): x")


HOSTILE = [
    "uint8",
    "int16",
    "bool",
    "address",
    "bytes3",
    "bytes",
    "string",
    "string[]",
    "bytes[][]",
    "uint256[][3]",
    "uint8[2][]",
]


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(HOSTILE),
    words=st.lists(st.integers(0, 2**256 - 1) | st.integers(0, 300), max_size=12),
)
def test_hostile_bytes_are_refused_or_canonical(kind: str, words: list[int]) -> None:
    """A node's answer makes the core panic, or gives a value that its type does not have."""
    data = b"".join(word.to_bytes(32, "big") for word in words)
    interface = interface_of({"name": "x", "type": kind})
    try:
        value = interface.decode("f", 1, data)
    except errors.ChainError:
        return
    oracle_encode([kind], [value])


def test_shared_bytes_are_refused() -> None:
    """A few megabytes, to which a hundred thousand offsets lead, fill the memory."""
    count, size = 20_000, 500_000
    heads = (count * 32).to_bytes(32, "big") * count
    data = (
        (32).to_bytes(32, "big") + count.to_bytes(32, "big") + heads + size.to_bytes(32, "big") + bytes(size)
    )
    with pytest.raises(errors.ChainError, match="share bytes"):
        interface_of({"name": "x", "type": "string[]"}).decode("f", 1, data)


def test_what_a_contract_has_not_is_named() -> None:
    interface = Interface(TILL)
    with pytest.raises(errors.InvalidInput, match="Till has no function spend; it has "):
        interface.encode("spend", "[]")
    with pytest.raises(errors.InvalidInput, match=r"pay\(string\) takes 1 arguments, 0 were given"):
        interface.encode("pay", "[]")
    with pytest.raises(errors.InvalidInput, match="no contract's artifact"):
        Interface("{}")
    with pytest.raises(errors.NotFound, match="Nothing"):
        _native.artifact("Nothing")


def use(chain: Chain) -> Contract:
    """Pays a till, reads it and is refused, with one witness more: web3.py's decoding of the same bytes."""
    account = Key.device().address
    till = Contract.deploy(chain, TILL, account)
    assert till.read("owner").lower() == account.lower()
    first, second = (till.send("pay", "for über", value=25 * 10**17) for _ in range(2))
    assert first.transaction != second.transaction
    assert int(chain.rpc("eth_getBalance", [till.address, "latest"]), 16) == 5 * 10**18
    assert till.read("payments") == 2
    fields = {"value": 25 * 10**17, "raw": "for über".encode()}
    found = till.events("Paid", **{"from": account})
    assert [event["transaction"] for event in found] == [first.transaction, second.transaction]
    assert found[:1] == first.events
    assert found[0]["fields"] == {"from": till.read("owner"), "note": Web3.keccak(text="for über"), **fields}
    assert till.events("Paid", first.block + 1)[0]["block"] == second.block
    assert till.events("Paid", note="another") == []
    items = [{"id": 2**64 - 1, "root": bytes(31) + b"\1", "label": "ß", "weights": [-(2**127), 2**127 - 1]}]
    assert till.read("echo", items, True) == {"0": items, "negated": False}
    assert till.read("sender", sender=account) == till.read("owner")
    with pytest.raises(errors.ChainError, match=r'TooLittle\(expected: 3, actual: 0, note: "refused"\)'):
        till.read("refuse", 3)
    with pytest.raises(errors.ChainError, match=r'the contract refuses: Error\(message: "not this"\)'):
        till.send("refuse", 1)
    with pytest.raises(errors.InvalidInput, match="takes no float"):
        till.send("pay", 1.5, value=1)
    with pytest.raises(errors.InvalidInput, match="-1 wei"):
        till.send("pay", "", value=-1)
    assert chain.why() == []
    return till


def test_a_contract_on_the_development_chain(home: Path, tmp_path: Path) -> None:
    chain = Chain.dev(tmp_path / "chain")
    till = use(chain)
    with chain.serve() as server:
        web3 = Web3(HTTPProvider(server.url))
        known = web3.eth.contract(address=web3.to_checksum_address(till.address), abi=json.loads(TILL)["abi"])
        events = known.events.Paid().get_logs(from_block=0)
        assert [event.args.value for event in events] == [25 * 10**17] * 2
        assert known.functions.payments().call() == 2
    ledger = Contract(chain, chain.contract, "RunLedger")
    with pytest.raises(errors.ChainError, match="UnsupportedFlags: it cannot enforce"):
        ledger.send("register", Key.device().address, bytes(32), 1 << 63, bytes(32))


@needs_anvil
def test_a_contract_on_anvil(home: Path) -> None:
    with anvil() as url:
        Chain.deploy(url)
        chain = Chain.connect(url)
        till = use(chain)
        # Anvil has the factory, so the address follows from the code.
        again = Contract.deploy(chain, TILL, Key.device().address)
        assert again.address == till.address
        assert again.read("payments") == 2
