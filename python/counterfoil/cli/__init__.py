"""The command line: each command is a sentence and a call.

Exit codes: 0 verified, 1 error, 2 usage, 3 refuted, 4 undecided. Only a verdict gives 3: whatever
goes wrong in this program itself is an error, so that a traceback never reads as an accusation.
Of `diff`: 0 nothing differs, 3 something does, 4 nothing does but something could not be compared.
"""

from __future__ import annotations

import json as json_format
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from string import hexdigits
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import counterfoil
from counterfoil.attest import reveal as reveal_answers
from counterfoil.cli import checkpoint
from counterfoil.cli.attacks import attacks
from counterfoil.cli.chain import ChainFolder, Contract, Network, Payer, chain_app, opened
from counterfoil.cli.keys import key_app
from counterfoil.cli.market import market_app
from counterfoil.cli.new import new
from counterfoil.cli.options import (
    ERROR,
    REFUTED,
    UNDECIDED,
    Json,
    Recipe,
    Require,
    Requirement,
    RunFolder,
    Signer,
    TrustedBlock,
    TrustedChain,
    finish,
    pins,
    printable,
    working,
)
from counterfoil.cli.report import report
from counterfoil.cli.review import review
from counterfoil.cli.simulate import simulate_app
from counterfoil.errors import CounterfoilError, InvalidInput, Refuted
from counterfoil.fingerprints import publish as publish_fingerprints
from counterfoil.lookup import Finding
from counterfoil.lookup import environment as read_environment

_COLUMNS = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn())

app = typer.Typer(
    name="counterfoil",
    help="Evidence of training: record it, verify it, re-execute it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(chain_app, name="chain")
app.add_typer(key_app, name="key")
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(simulate_app, name="simulate")
app.add_typer(market_app, name="market")


RunUntrusted = Annotated[
    bool, typer.Option("--run-untrusted", help="Run the prover's code without pinning it.")
]
Environment = Annotated[
    str,
    typer.Option(
        help="What steps are executed with where the run says otherwise: threads=2,ATEN_CPU_CAPABILITY=avx2."
    ),
]


@app.command()
def demo(
    first: Annotated[
        str,
        typer.Argument(metavar="workers|market", help="The other demos: four train one model; work is paid."),
    ] = "",
    path: Annotated[str, typer.Argument(help="Where a demo records its runs; by default in runs.")] = "",
    anvil: Annotated[
        bool, typer.Option(help="Of the market: on the node anvil, which must be on PATH.")
    ] = False,
) -> None:
    """Train, record, anchor and verify two small models, then refute lies about them."""
    if (first not in ("workers", "market") and path) or (anvil and first != "market"):
        raise typer.BadParameter(f"{first!r} is no demo; with a path there are `workers` and `market`")
    from counterfoil.torch.demo import main, market, workers

    if first == "workers":
        workers.main(path or "runs")
    elif first == "market":
        market.main(path or "runs", anvil=anvil)
    else:
        main(first or "runs")


@app.command()
def verify(
    run: RunFolder,
    signer: Signer = None,
    recipe: Recipe = None,
    require: Requirement = Require.INTEGRITY,
    chain: TrustedChain = None,
    contract: Contract = None,
    trusted_block: TrustedBlock = None,
    json: Json = False,
) -> None:
    """Check a run's evidence and print the verdict."""
    with working(f"Verifying {run}"):
        verdict = counterfoil.verify(run, **pins(signer, recipe, require, chain, contract, trusted_block))
    finish(verdict, json)


@app.command()
def replay(
    run: RunFolder,
    steps: Annotated[
        str, typer.Option(help="all, sample:20, beacon:20, or steps and spans: 0,3,207:217.")
    ] = "sample:20",
    jobs: Annotated[int, typer.Option(min=1, help="Processes that execute steps at the same time.")] = 1,
    run_untrusted: RunUntrusted = False,
    attest: Annotated[
        bool,
        typer.Option(
            "--attest", help="Sign what came of each step, in a lane in RUN; go on where it was left."
        ),
    ] = False,
    key: Annotated[Path | None, typer.Option(help="File of the key that attests.")] = None,
    beacon: Annotated[
        str | None, typer.Option(help="32 bytes in hex under which answers are promised, for `reveal`.")
    ] = None,
    tolerance: Annotated[
        Path | None,
        typer.Option(help="Thresholds of `calibrate`, for steps whose bits differ on this machine."),
    ] = None,
    env: Environment = "",
    fingerprint_key: Annotated[
        str | None,
        typer.Option(help="32 bytes in hex that you gave whoever signed fingerprints of gradients."),
    ] = None,
    signer: Signer = None,
    recipe: Recipe = None,
    require: Requirement = Require.INTEGRITY,
    chain: TrustedChain = None,
    contract: Contract = None,
    trusted_block: TrustedBlock = None,
    json: Json = False,
) -> None:
    """Execute recorded steps again and compare every tensor bit for bit, or within a tolerance."""
    from counterfoil.torch import Calibration
    from counterfoil.torch import replay as re_execute

    if (key or beacon) and not attest:
        raise typer.BadParameter("--key and --beacon go with --attest")
    pinned = pins(signer, recipe, require, chain, contract, trusted_block)
    with _progress(f"Replaying {steps} of {run}") as progress:
        verdict = re_execute(
            run,
            steps,
            run_untrusted=run_untrusted,
            jobs=jobs,
            attest=_key(key) if attest else None,
            beacon=None if beacon is None else _word(beacon),
            progress=progress,
            tolerance=None if tolerance is None else Calibration.load(tolerance),
            environment=_environment(env),
            fingerprint_key=None if fingerprint_key is None else _word(fingerprint_key),
            **pinned,
        )
    finish(verdict, json)


@app.command()
def calibrate(
    run: RunFolder,
    output: Annotated[Path, typer.Option("-o", "--output", help="The thresholds, for `replay --tolerance`.")],
    steps: Annotated[int, typer.Option(min=1, help="How many steps to execute.")] = 16,
    env: Environment = "",
    run_untrusted: RunUntrusted = False,
    recipe: Recipe = None,
) -> None:
    """Measure by how much honest executions of a run's steps differ on this machine."""
    from counterfoil.torch import calibrate as measure

    chosen: dict[str, Any] = {
        "recipe": recipe,
        "run_untrusted": run_untrusted,
        "environment": _environment(env),
    }
    with _progress(f"Executing {steps} steps of {run}") as progress:
        found = measure(run, steps=steps, progress=progress, **chosen)
    found.save(output)
    typer.echo(f"{output}: calibration {found.digest}; not seen: {'; '.join(found.not_seen())}")


@app.command()
def reveal(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    key: Annotated[Path | None, typer.Option(help="File of the key that attests.")] = None,
) -> None:
    """Give the answers that `replay --attest --beacon` promised."""
    typer.echo(f"{reveal_answers(run, _key(key))} answers are revealed; type: counterfoil verify {run}")


@app.command()
def fingerprint(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    steps: Annotated[
        str | None, typer.Option(help="Steps and spans: 3,7:9; by default those whose gradients are stored.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="32 bytes in hex that a verifier gave; by default each step's own.")
    ] = None,
) -> None:
    """Sign sketches of stored gradients, by which others judge theirs without the bytes."""
    count = publish_fingerprints(run, steps, None if key is None else _word(key))
    typer.echo(f"{count} fingerprints are signed; type: counterfoil verify {run}")


@app.command()
def inspect(
    run: RunFolder,
    recipe: Annotated[
        bool, typer.Option("--recipe", help="Print the recipe's files, to be read before it is pinned.")
    ] = False,
    json: Json = False,
) -> None:
    """List what a run folder records, without judging it."""
    record = counterfoil.Record(run)
    if recipe:
        for name, content in sorted(record.recipe.items()):
            typer.echo(printable(f"# {name}\n{content.decode(errors='replace').expandtabs()}"))
        return
    receipts = [
        {
            "lane": f"{worker}/{lane}",
            "sequence": receipt.sequence,
            "kind": receipt.kind,
            "step": receipt.fields.get("step"),
            "digest": "0x" + receipt.digest.hex(),
            "opened": " ".join(sorted(record.opened(receipt))),
        }
        for worker, lane in record.lanes
        for receipt in record.receipts(worker, lane)
    ]
    if json:
        _print_json({"recipe": record.recipe_digest, "spec": record.spec, "receipts": receipts})
        return
    typer.echo(f"spec    {record.spec}\nrecipe  {record.recipe_digest}")
    for each in receipts:
        number = f"{each['lane']} {each['sequence']:>7}"
        what = each["kind"] if each["step"] is None else f"{each['kind']} {each['step']}"
        typer.echo(f"{number} {what:<16} {each['digest']}  {each['opened']}")


@app.command()
def uses(
    run: RunFolder,
    sample: Annotated[str, typer.Argument(help="Its place in the dataset, or its digest in hex.")],
    json: Json = False,
) -> None:
    """Say at which steps a sample was used, or that it never was."""
    digest = sample.removeprefix("0x")
    try:
        # A digest may consist of decimal digits alone.
        found = counterfoil.uses(run, bytes.fromhex(digest) if len(digest) == 64 else int(sample))
    except ValueError:
        raise typer.BadParameter(f"{sample!r} is neither a place nor a digest in hex") from None
    if json:
        _print_json(asdict(found))
    else:
        typer.echo(str(found))
    raise typer.Exit(UNDECIDED if found.gaps and not found.steps else 0)


@app.command()
def environment(
    run: RunFolder,
    other: Annotated[Path | None, typer.Argument(metavar="[OTHER]", help="A run to compare with.")] = None,
    json: Json = False,
) -> None:
    """Show what a run was computed with; with OTHER, what differs."""
    ours = read_environment(run)
    if other is None:
        shown: dict[str, Any] = ours
    else:
        theirs = read_environment(other)
        names = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
        shown = {name: [ours.get(name), theirs.get(name)] for name in names}
    if json:
        _print_json(shown)
        return
    for name, value in shown.items():
        typer.echo(f"{name:<20} {value if other is None else f'{value[0]} | {value[1]}'}")
    if other is not None and not shown:
        typer.echo("nothing differs")


@app.command()
def diff(
    run: RunFolder,
    other: Annotated[
        Path | None, typer.Argument(metavar="[OTHER]", help="A record of the same training.")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            help="Instead of OTHER: train here again, with settings such as threads=2,ATEN_CPU_CAPABILITY=avx2; "
            "twice to compare two environments."
        ),
    ] = None,
    run_untrusted: RunUntrusted = False,
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Find the first difference between two records, or two trainings, down to the element. Exit code 3 for one."""
    if (other is None) == (env is None):
        raise typer.BadParameter("either OTHER, or --env once or twice")
    if other is not None:
        with working(f"Comparing {run} and {other}"):
            found = counterfoil.diff(run, other)
    else:
        from counterfoil.torch import diff_live

        chosen = [_environment(each) for each in env or ()]
        with _progress(f"Training {run} again") as progress:
            found = diff_live(run, *chosen, recipe=recipe, run_untrusted=run_untrusted, progress=progress)
    if json:
        _print_json(asdict(found))
    else:
        typer.echo(str(found))
    raise typer.Exit(REFUTED if found.first is not None else UNDECIDED if found.gaps else 0)


@app.command()
def export(
    run: RunFolder,
    output: Annotated[Path, typer.Option("-o", "--output", help="The bundle, x.counterfoil by custom.")],
    steps: Annotated[str | None, typer.Option(help="207:217 or 217; by default all.")] = None,
    tensor: Annotated[
        list[str] | None,
        typer.Option(help="Open only this, as parameters/0.weight, or one chunk: .../0.weight@3."),
    ] = None,
    sealed: Annotated[bool, typer.Option("--sealed", help="Open nothing.")] = False,
) -> None:
    """Write a bundle: one file that anybody can verify offline."""
    wanted = None if steps is None else range(*_steps(steps))
    tensors = dict(map(_tensor, tensor or ()))
    with working(f"Exporting {run}"):
        counterfoil.export(run, output, steps=wanted, tensors=tensors if tensors or sealed else None)
    typer.echo(f"{output}: {output.stat().st_size} bytes; type: counterfoil verify {output}")


@app.command()
def histories(
    one: Annotated[Path, typer.Argument(help="A run folder, a bundle, or a proof to check.")],
    other: Annotated[Path | None, typer.Argument(help="Another copy of the run.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Where to write the proof.")] = None,
) -> None:
    """Say whether two copies of a run are one history, or prove that a worker signed two."""
    if other is None:
        try:
            frames = [bytes.fromhex(line) for line in one.read_text("ascii").splitlines()]
        except (OSError, ValueError) as refused:
            raise InvalidInput(f"{one} is no proof of two histories: {refused}", where=str(one)) from None
        found: counterfoil.Contradiction | None = counterfoil.Contradiction(frames)
    else:
        found = counterfoil.Record(one).contradiction(counterfoil.Record(other))
    if found is None:
        typer.echo("no contradiction: every position and size that both show is the same")
        return
    if output is not None:
        output.write_text("".join(f"{frame.hex()}\n" for frame in found.frames))
    what = {"fork": "two receipts of one position", "two-histories": "two tree heads of one size"}[found.kind]
    typer.echo(f"{found.worker} signed {what}, with different contents")
    raise typer.Exit(REFUTED)


@app.command()
def erase(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    record: Annotated[
        str | None, typer.Option(metavar="LIST:INDEX", help="One record of a list, by the list's root.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it: what is erased does not come back.")] = False,
) -> None:
    """Forget one record, or everything behind a run's receipts, which still verify."""
    one = None
    if record is not None:
        root, _, index = record.partition(":")
        try:
            one = bytes.fromhex(root.removeprefix("0x")), int(index)
        except ValueError:
            raise typer.BadParameter(f"{record!r} is no LIST:INDEX") from None
    if not yes:
        raise typer.BadParameter("what is erased does not come back: say --yes")
    typer.echo(str(counterfoil.erase(run, one)))


@app.command()
def anchor(
    run: RunFolder,
    chain: Network = None,
    contract: Contract = None,
    key: Payer = None,
    folder: ChainFolder = None,
    json: Json = False,
) -> None:
    """Record the run's tree head on a chain; without --chain on the development chain here."""
    with working(f"Anchoring {run}"):
        record = opened(chain, contract, folder).anchor(
            run, None if key is None else counterfoil.Key.load(key)
        )
    typer.echo(record.to_json() if json else str(record))


@app.command()
def doctor(
    first: Annotated[
        str, typer.Argument(metavar="[RUN | recipe]", help="A run folder, or the word `recipe`.")
    ] = "",
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="A recipe: a Python file, or a folder with recipe.py.")
    ] = "",
    repair: Annotated[
        bool, typer.Option("--repair", help="Cut off unfinished writes, as the next Run.open would.")
    ] = False,
    spec: Annotated[str, typer.Option(metavar="JSON", help="The run's specification, for a recipe.")] = "{}",
    steps: Annotated[int, typer.Option(min=1, help="How many steps of a recipe to record and replay.")] = 4,
    json: Json = False,
) -> None:
    """Report on this installation and on a run folder, or prove that a recipe replays; only --repair changes a run."""
    if file:
        if first != "recipe" or repair:
            raise typer.BadParameter(
                "with a second path there is `doctor recipe FILE`, which repairs nothing"
            )
        findings = _rehearse(file, spec, steps)
    else:
        from counterfoil.cli.doctor import examine

        if repair and not first:
            raise typer.BadParameter("--repair needs a run folder")
        findings = examine(Path(first) if first else None, _home(), repair=repair)
    if json:
        _print_json([finding.__dict__ for finding in findings])
    else:
        for finding in findings:
            typer.echo(f"{'ok ' if finding.ok else 'BAD'} {finding.what}: {finding.detail}")
    raise typer.Exit(0 if all(finding.ok for finding in findings) else ERROR)


def _rehearse(recipe: str, spec: str, steps: int) -> list[Finding]:
    from counterfoil.torch import rehearse

    try:
        document = json_format.loads(spec)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise typer.BadParameter(f"{spec!r} is no JSON object", param_hint="--spec")
    with working(f"Recording {steps} steps of {recipe} and executing them again"):
        return rehearse(recipe, document, steps=steps)


app.command()(attacks)
app.command()(report)
app.command()(review)
app.command()(new)


def main() -> None:
    """Runs the command line; every way out has its exit code."""
    as_json = "--json" in sys.argv
    try:
        app()
    except Refuted as refuted:
        finish(refuted.verdict, as_json)
    except CounterfoilError as error:
        _fail(error.code, str(error), as_json)
    except ModuleNotFoundError as error:
        hint = "this command needs torch: pip install 'counterfoil[demo]'"
        _fail("not-installed", f"{error}; {hint}", as_json)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        hint = "a fault of this program, not of the run; see `counterfoil doctor`"
        _fail("internal", f"{text} ({hint})", as_json)


def _fail(code: str, message: str, json: bool) -> NoReturn:
    if json:
        _print_json({"error": code, "message": message})
    else:
        typer.echo(f"error: {message}", err=True)
    sys.exit(ERROR)


def _print_json(value: Any) -> None:
    typer.echo(json_format.dumps(value, indent=2))


def _key(file: Path | None) -> counterfoil.Key:
    return counterfoil.Key.device() if file is None else counterfoil.Key.load(file)


def _word(text: str) -> bytes:
    digits = text.removeprefix("0x")
    if len(digits) != 64 or any(digit not in hexdigits for digit in digits):
        raise typer.BadParameter(f"{text!r} is not 32 bytes in hex")
    return bytes.fromhex(digits)


def _steps(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    if not first.isdecimal() or not (last or first).isdecimal() or int(last or first) < int(first):
        raise typer.BadParameter(f"{text!r} is neither a step nor first:last")
    return int(first), int(last or first) + 1


def _tensor(text: str) -> tuple[str, int | None]:
    """A tensor's name, or a name and the number of a chunk behind the last `@`."""
    name, _, chunk = text.rpartition("@")
    return (name, int(chunk)) if name and chunk.isdecimal() else (text, None)


def _home() -> Path:
    return Path(os.environ.get("COUNTERFOIL_HOME") or Path.home() / ".counterfoil")


def _environment(text: str) -> dict[str, str | int | bool]:
    """`threads=2,deterministic=true,NAME=value` by name; what is no setting stays text."""
    values: dict[str, str | int | bool] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise typer.BadParameter(f"{part!r} is no NAME=VALUE")
        if name == "threads" and value.isdecimal():
            values[name] = int(value)
        elif name in ("deterministic", "mkldnn") and value in ("true", "false"):
            values[name] = value == "true"
        else:
            values[name] = value
    return values


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal, and nothing in a file or a pipe."""
    with Progress(*_COLUMNS, console=Console(stderr=True), transient=True) as shown:
        bar = shown.add_task(what, total=None)
        yield lambda done, total: shown.update(bar, completed=done, total=total)
