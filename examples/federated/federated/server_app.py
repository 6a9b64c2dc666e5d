"""The server: a strategy of Flower, wrapped, in the block of a run."""

from flwr.app import Array, ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from counterfoil import Run, verify
from counterfoil.flower import Recorded, recompute
from federated import task

app = ServerApp()


def evaluate(_round: int, arrays: ArrayRecord) -> MetricRecord:
    model = {name: array.numpy() for name, array in arrays.items()}
    return MetricRecord({"accuracy": task.accuracy(model, *task.load())})


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    arrays = ArrayRecord({name: Array(array) for name, array in task.initial().items()})
    strategy = task.make_strategy(config["strategy"])
    with Run.create(config["folder"], spec={"strategy": config["strategy"]}) as run:
        strategy = Recorded(strategy, run)
        strategy.start(grid=grid, initial_arrays=arrays, num_rounds=config["rounds"], evaluate_fn=evaluate)
    print(verify(config["folder"]))
    print(recompute(config["folder"], task.make_strategy(config["strategy"])))
