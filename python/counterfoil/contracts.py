"""Contracts that are not the run ledger: read, call through the outbox, and find what happened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from counterfoil import _native
from counterfoil._native import Interface, Key
from counterfoil.chain import Chain
from counterfoil.errors import InvalidInput

__all__ = ["Contract", "Sent"]


@dataclass(frozen=True)
class Sent:
    """What a call that is final left.

    Attributes:
        transaction: Its hash.
        block: Number of its block.
        cost: Its fees, wei; what it paid to the contract is not among them.
        events: Those of the contract in this transaction, as of `Contract.events`.
    """

    transaction: str
    block: int
    cost: int
    events: list[dict[str, Any]]


class Contract:
    """A contract of any interface at an address of a chain.

    Integers are Python's, whatever their width. Bytes are `bytes`, addresses checksummed text, structs and tuples
    dictionaries by component name; as arguments, 0x and hexadecimal digits do for bytes, and lists for structs. Of
    overloaded functions a name is the signature, such as `open(uint256,bytes)`.

    Attributes:
        chain: The chain.
        address: Where it lies, checksummed.
        name: Its name, as its artifact has it.

    Example:
        vault = Contract(chain, address, "StakeVault")
        vault.send("deposit", value=10**18)
        vault.read("stakeOf", Key.device().address)
    """

    def __init__(self, chain: Chain, address: str, artifact: str) -> None:
        """Names a contract; nothing is asked yet.

        Args:
            chain: The chain.
            address: Where the contract lies.
            artifact: The name of a contract that comes with the library, or the JSON of another one's artifact:
                an object with `abi`, and `contract` (its name) and `bytecode`, which deploying needs.

        Raises:
            InvalidInput: This is no address, or no artifact.
            NotFound: No contract of this name comes with the library.
        """
        self.chain = chain
        self.address = _native.checksum_address(address)
        self._interface = _interface(artifact)
        self.name = self._interface.name

    @classmethod
    def deploy(cls, chain: Chain, artifact: str, *args: Any, key: Key | None = None) -> Self:
        """Brings a contract to a chain.

        Where the usual factory for CREATE2 is, the address follows from the code and the arguments, and repeating
        a call is safe: a contract that lies there is taken as it is. Elsewhere, as on a development chain in
        this process, each call creates another one.

        Args:
            chain: The chain.
            artifact: As of the constructor.
            args: Arguments of the contract's constructor.
            key: As of `send`.

        Raises:
            InvalidInput: This is no artifact, it has no code, or an argument is not of its type.
            KeyRefused: No key was chosen to pay on a public chain.
            Unfinished: It waits in the outbox, for the reason it names.
            ChainError: The constructor refuses.
        """
        interface = _interface(artifact)
        address = interface.create(chain._native, _to_json(args), key or Key.device(), key is not None)
        return cls(chain, address, artifact)

    def read(self, function: str, *args: Any, sender: str | None = None) -> Any:
        """What a function answers by the latest block, which need not be final; nothing is sent.

        Args:
            function: The function's name.
            args: Its arguments.
            sender: The address that the contract sees as its caller; zero by default.

        Returns:
            The only result, or all by name, or by position where they have none.

        Raises:
            InvalidInput: There is no such function, or an argument is not of its type.
            ChainError: The contract refuses, or the node does, or its answer is not of the declared type.
        """
        return self._interface.read(self.chain._native, self.address, function, _to_json(args), sender)

    def send(self, function: str, *args: Any, value: int = 0, key: Key | None = None) -> Sent:
        """Calls a function, and returns when that is as deep in the chain as the network asks for.

        The call goes through the outbox: once it is written down it is sent exactly once, whatever happens to this
        process or the node. So two equal calls are two calls, and one that was interrupted, or raised `Unfinished`,
        is not to be repeated: `Chain.resume` brings it to its end. Repeating is harmless where the contract refuses
        a repetition.

        Args:
            function: The function's name.
            args: Its arguments.
            value: What the contract gets, wei.
            key: The key that pays; by default the device key, which pays on development chains only.

        Raises:
            InvalidInput: There is no such function, or an argument is not of its type; nothing was written down.
            KeyRefused: No key was chosen to pay on a public chain; nothing was written down.
            Unfinished: The call waits in the outbox, for the reason it names; `Chain.resume` goes on.
            ChainError: The contract refuses, for the reason it names, and the call is given up.
        """
        if not 0 <= value < 1 << 128:
            raise InvalidInput(
                f"{value} wei cannot be paid", expected="0 to 2^128 - 1", actual=str(value), where="value"
            )
        sent = self._interface.send(
            self.chain._native,
            self.address,
            function,
            _to_json(args),
            value,
            key or Key.device(),
            key is not None,
        )
        return Sent(*sent)

    def events(self, name: str, from_block: int = 0, **indexed: Any) -> list[dict[str, Any]]:
        """What the contract said, oldest first, up to the latest block, which need not be final.

        Args:
            name: The event's name.
            from_block: The first block that counts.
            indexed: Values of indexed fields, by name, that an event must have.

        Returns:
            For each its `name`, `block` (a number), `transaction` (a hash) and `fields` by name. Of an indexed field
            of a dynamic type, a text for instance, the chain keeps the Keccak-256 hash alone: 32 bytes.

        Raises:
            InvalidInput: There is no such event or indexed field, or a value is not of its type.
            ChainError: The node refuses, or its answer is not of the declared type.
        """
        return self._interface.events(self.chain._native, self.address, name, from_block, _to_json(indexed))


def _interface(artifact: str) -> Interface:
    is_document = artifact.lstrip().startswith("{")
    return Interface(artifact if is_document else _native.artifact(artifact))


def _to_json(value: Any) -> str:
    return json.dumps(_plain(value))


def _plain(value: Any) -> Any:
    """As the core takes it: no JSON reader keeps integers of 256 bits, so they are decimal text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return "0x" + bytes(value).hex()
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    try:
        # Integers of numpy among them; a float is none.
        return str(value.__index__())
    except AttributeError:
        raise InvalidInput(
            f"a contract takes no {type(value).__name__}", actual=type(value).__name__, where="arguments"
        ) from None
