"""Chains: deploy, submit, look, and a development chain on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import counterfoil
from counterfoil.chain import submissions

chain_app = typer.Typer(help="Chains, and what waits to be on one.", no_args_is_help=True)

Network = Annotated[
    str | None,
    typer.Option("--chain", metavar="NETWORK", help="A network's name, as galileo, or a node's address."),
]
Contract = Annotated[str | None, typer.Option(help="The RunLedger's address.")]
ChainFolder = Annotated[Path | None, typer.Option(help="Where the development chain lies.")]
Payer = Annotated[Path | None, typer.Option("--key", help="File of the key that pays.")]


def opened(network: str | None, contract: str | None, folder: Path | None) -> counterfoil.Chain:
    """The chain that is meant: without a name the development chain in this process."""
    if network is None or network == "dev":
        return counterfoil.Chain.dev(folder)
    return counterfoil.Chain.connect(network, contract)


@chain_app.command()
def serve(
    folder: ChainFolder = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8545,
) -> None:
    """Serve the development chain's JSON-RPC on this machine until interrupted."""
    import threading

    with counterfoil.Chain.dev(folder).serve(port) as server:
        typer.echo(f"{server.url} (interrupt to stop)")
        threading.Event().wait()


@chain_app.command()
def deploy(
    chain: Annotated[str, typer.Option("--chain", metavar="NETWORK", help="Its name, or a node's address.")],
    key: Payer = None,
) -> None:
    """Bring the run ledger to a network; where it is already, say where."""
    ledger = counterfoil.Chain.deploy(chain, _loaded(key))
    typer.echo(f"the run ledger lies at {ledger.contract} on chain {ledger.chain_id}")


@chain_app.command()
def status() -> None:
    """List everything that was ever submitted from here, without asking any chain."""
    for line in submissions():
        typer.echo(": ".join(line))


@chain_app.command()
def why(chain: Network = None, folder: ChainFolder = None) -> None:
    """Say why submissions to a chain wait, and what to do; nothing is sent."""
    typer.echo("\n".join(_reached(chain, folder).why()) or "nothing waits")


@chain_app.command()
def resume(chain: Network = None, key: Payer = None, folder: ChainFolder = None) -> None:
    """Bring submissions that wait to their end: after a crash, an empty account, a silent node."""
    typer.echo("\n".join(_reached(chain, folder).resume(_loaded(key))) or "nothing waits")


@chain_app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="Address of the key that shall sign no more.")],
    chain: Network = None,
    contract: Contract = None,
    payer: Annotated[
        Path | None, typer.Option(help="File of the worker's key, or of the revoked one.")
    ] = None,
    worker: Annotated[str | None, typer.Option(help="For whom it signed; the payer by default.")] = None,
    folder: ChainFolder = None,
) -> None:
    """Declare for ever that a key signs no more; what is anchored stays valid."""
    ledger = opened(chain, contract, folder)
    block, _ = ledger.revoke(key, _loaded(payer), worker=worker)
    typer.echo(f"{key} is revoked from block {block} of chain {ledger.chain_id} on")


def _reached(network: str | None, folder: Path | None) -> counterfoil.Chain:
    """The chain that is meant, with or without a run ledger."""
    return opened(None, None, folder) if network in (None, "dev") else counterfoil.Chain.reach(network)


def _loaded(key: Path | None) -> counterfoil.Key | None:
    return None if key is None else counterfoil.Key.load(key)
