"""Infrastructure: a grid operator's forecast of tomorrow's load, and its evidence.

pip install counterfoil[pilots] && python examples/pilots/grid.py

Data: `taylor` of the package pmdarima (the package is MIT-licensed): half-hourly electricity demand of England and Wales in
megawatts, 5 June to 27 August 2000, from J.W. Taylor (2003), Journal of the Operational Research Society 54, 799-805,
who provided it for R's package forecast (GPL-3). Nobody states a licence of the data alone.
"""

import math

import torch
from pmdarima.datasets import load_taylor

import counterfoil
from counterfoil.torch import commit_dataset
from shared import fresh, release, show, standardised, train

DAY, WEEK = 48, 336
FEATURES = ["load a day ago", "load a week ago", "sine of the day", "cosine of the day", "is weekend"]
HELD_OUT = 2 * WEEK


def load():
    """Features and load of each half-hour that has a week before it; the series begins on a Monday at midnight."""
    demand = torch.tensor(load_taylor(), dtype=torch.float32)
    place = torch.arange(WEEK, len(demand))
    turn = place % DAY / DAY * 2 * math.pi
    is_weekend = (place % WEEK >= 5 * DAY).float()
    columns = [demand[place - DAY], demand[place - WEEK], turn.sin(), turn.cos(), is_weekend]
    return torch.stack(columns, dim=1), demand[place], place % DAY


def errors(forecast, actual, half_hour):
    """Mean absolute percentage error, of all half-hours and by quarter of the day."""
    error = ((forecast - actual) / actual).abs() * 100
    found = {"all": error.mean().item()}
    for name, quarter in zip(("night", "morning", "afternoon", "evening"), range(4), strict=True):
        found[name] = error[half_hour // (DAY // 4) == quarter].mean().item()
    return found


def main():
    features, demand, half_hour = load()
    known = slice(None, -HELD_OUT)
    scaled = standardised(features, features[known])
    centre, spread = demand[known].mean(), demand[known].std()
    target = (demand - centre) / spread
    data = torch.utils.data.TensorDataset(scaled[known], target[known])
    tested = torch.utils.data.TensorDataset(scaled[-HELD_OUT:], target[-HELD_OUT:])
    spec = {
        "data": "taylor of the Python package pmdarima: load of England and Wales, summer of 2000; all but two weeks",
        "seed": 1, "features": FEATURES, "hidden": 32, "loss": "mse_loss",
        "learning_rate": 1e-2, "batch": 128, "epochs": 10,
    }  # fmt: skip
    operator, regulator = counterfoil.Key.generate(), counterfoil.Key.generate()
    path = fresh("grid") / "run"
    model = train(path, data, spec, key=operator, dataset=commit_dataset(data))

    with torch.no_grad():
        forecast = model(scaled[-HELD_OUT:]) * spread + centre
    actual, when = demand[-HELD_OUT:], half_hour[-HELD_OUT:]
    ours, naive = errors(forecast, actual, when), errors(features[-HELD_OUT:, 1], actual, when)
    print("Error of the last two weeks, in percent of the load")
    for name, error in ours.items():
        print(f"  {name:<10} {error:5.2f}, by last week's load {naive[name]:5.2f}")
    metrics = {f"error in percent/{name}": error for name, error in ours.items()}
    metrics |= {f"error in percent, by last week's load/{name}": error for name, error in naive.items()}
    release(path, tested, metrics, owner=operator, evaluator=regulator)
    show(path, operator.address, "Grid: what a regulator asks of a forecast")
    print("\nTwo weeks of one summer: nothing here speaks of winter, of holidays or of today's grid.")


if __name__ == "__main__":
    main()
