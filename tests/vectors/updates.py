"""Makes tests/vectors/updates.json: steps of torch's optimisers on CPU tensors, as hexadecimal canonical bytes.

    python tests/vectors/updates.py

Each setting makes steps of one parameter of 37 elements, a vector and its tail, with subnormal, zero, huge and
infinite ones. The kernels without vectors are those of a process of its own. Powers of the betas are of steps far on.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
SETTINGS = {
    "sgd": (torch.optim.SGD, {"lr": 0.1}),
    "sgd, momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    "sgd, nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    "adam": (torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.1}),
    "adam, amsgrad": (torch.optim.Adam, {"lr": 0.01, "amsgrad": True, "maximize": True, "betas": (0.4, 0.9)}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01}),
}
KEYS = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize", "betas", "eps", "amsgrad")


def tensor(dtype, generator):
    scale = 10.0 ** torch.randint(-6, 3, (37,), generator=generator)
    values = (torch.randn(37, generator=generator, dtype=torch.float64) * scale).to(dtype)
    values[3] = 0.0
    values[5] *= torch.finfo(dtype).smallest_normal
    values[36] *= 1e30
    return values


def text(value):
    return value.detach().numpy().tobytes().hex()


def cases():
    for name, (kind, chosen) in SETTINGS.items():
        for dtype in (torch.float32, torch.float64):
            generator = torch.Generator().manual_seed(1)
            parameter = torch.nn.Parameter(tensor(dtype, generator))
            optimizer = kind([parameter], **chosen)
            for step in range(4):
                parameter.grad = tensor(dtype, generator)
                if step == 1:
                    parameter.grad[7] = float("inf")
                state = optimizer.state[parameter]
                if "step" in state and step == 3:
                    state["step"].fill_(12_345)
                before = {key: (str(each.dtype), text(each)) for key, each in state.items()}
                case = {"setting": name, "dtype": str(dtype).removeprefix("torch."), "before": before}
                case |= {key: value for key, value in optimizer.param_groups[0].items() if key in KEYS}
                case["decoupled"] = kind is torch.optim.AdamW
                case |= {"parameter": text(parameter), "gradient": text(parameter.grad)}
                case["kernels"] = torch.backends.cpu.get_cpu_capability()
                optimizer.step()
                case["after"] = {key: text(each) for key, each in optimizer.state[parameter].items()}
                yield case | {"parameter_after": text(parameter)}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(list(cases())))
    else:
        found = []
        for capability in ("avx2", "default"):
            environment = os.environ | {"ATEN_CPU_CAPABILITY": capability}
            command = [sys.executable, __file__, "here"]
            found += json.loads(
                subprocess.run(command, env=environment, capture_output=True, check=True).stdout
            )
        lines = ",\n".join(json.dumps(case) for case in found)
        (HERE / "updates.json").write_text(f"[\n{lines}\n]\n")
