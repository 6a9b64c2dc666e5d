"""`counterfoil market`: what became of jobs."""

from __future__ import annotations

from typing import Annotated

import typer

from counterfoil.cli.chain import ChainFolder, Network, opened
from counterfoil.errors import InvalidInput
from counterfoil.market import Market
from counterfoil.market import why as explain

market_app = typer.Typer(no_args_is_help=True, help="Paid training: what became of jobs.")
Address = Annotated[str, typer.Argument(metavar="MARKET", help="Address of the market's contract.")]


@market_app.command()
def jobs(market: Address, chain: Network = None, folder: ChainFolder = None) -> None:
    """List the jobs of a market, and where each of them stands."""
    found = Market(opened(chain, None, folder), market)
    for job in found.jobs():
        typer.echo(f"0x{job.id.hex()}  {found.state(job)['state'].name.lower()}")


@market_app.command()
def why(
    market: Address,
    job: Annotated[str, typer.Argument(help="The job's name, 0x and 64 hexadecimal digits.")],
    chain: Network = None,
    folder: ChainFolder = None,
) -> None:
    """Say why a job was not paid, or not yet, step by step."""
    try:
        name = bytes.fromhex(job.removeprefix("0x"))
    except ValueError:
        raise InvalidInput(f"{job!r} is no job's name", where="job") from None
    found = Market(opened(chain, None, folder), market)
    for line in explain(found, found.job(name)):
        typer.echo(line)
