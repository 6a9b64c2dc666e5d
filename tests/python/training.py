"""A small training with PyTorch, and what its receipts must hold."""

import struct

import numpy as np
import torch

import counterfoil
import oracle

TAGS = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.complex64: "C64",
}


def tensor_bytes(tensor):
    """Canonical bytes element by element, without the library's way of reading them."""
    bits, code = {2: (torch.int16, "<h"), 4: (torch.int32, "<i"), 8: (torch.int64, "<q")}[
        tensor.element_size()
    ]
    elements = (tensor[index] for index in np.ndindex(*tensor.shape))
    return b"".join(struct.pack(code, one.clone().reshape(1).view(bits).item()) for one in elements)


def tensor_root(tensor):
    return oracle.root(oracle.chunks(tensor_bytes(tensor)))


def entry(name, tensor):
    if tensor is None:
        return oracle.Entry(name, 1)
    shape, size = tuple(tensor.shape), tensor.numel() * tensor.element_size()
    return oracle.Entry(name, 0, TAGS[tensor.dtype], shape, size, tensor_root(tensor))


def state_root(tensors, *more):
    return oracle.state_root([entry(name, tensor) for name, tensor in tensors.items()] + list(more))


def model() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(50, 40), torch.nn.Tanh(), torch.nn.Linear(40, 3))


def train(net, optimizer, recorder, steps=4):
    """Trains and returns what `.grad` and the loss held at each step."""
    applied = []
    for _ in range(steps):
        loss = net(torch.randn(6, 50)).square().mean()
        loss.backward()
        recorder.log(loss=loss)
        optimizer.step()
        applied.append({name: p.grad.clone() for name, p in net.named_parameters()} | {"loss": loss.item()})
        # In place: what is hashed late would be hashed as zeros.
        optimizer.zero_grad(set_to_none=False)
        loss.detach().zero_()
    return applied


def steps_of(path):
    record = counterfoil.Record(path)
    return [(r, record.opened(r)) for r in record.receipts() if r.kind == "step"]


def reason_of(path):
    """Why the run was closed: 0 finished, 1 something was not recorded."""
    (close,) = (r for r in counterfoil.Record(path).receipts() if r.kind == "close")
    return close.fields["reason"]


def check(path, applied, flags=0):
    """Each receipt holds the gradient and the loss of its step."""
    found = steps_of(path)
    assert [receipt.fields["step"] for receipt, _ in found] == list(range(1, len(applied) + 1))
    for (receipt, opened), held in zip(found, applied, strict=True):
        loss = held.pop("loss")
        numpy = {name: gradient.numpy() for name, gradient in held.items()}
        assert opened["gradients"].commitment == counterfoil.commit_tensors(numpy)
        assert opened["metrics"].scalars() == {"loss": loss}
        assert receipt.fields["flags"] == flags
