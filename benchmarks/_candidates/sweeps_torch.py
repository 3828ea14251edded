"""Gradient descent from many starts with torch: module, autograd, optimiser."""

import torch


def module_loop(problem, dtype):
    """torch.nn module and torch.optim.SGD, start by start, step by step."""
    put = lambda name: torch.as_tensor(problem[name].astype(dtype))
    inputs, targets, outer = put("inputs"), put("targets"), put("outer")
    starts, rate, steps = put("starts"), float(problem["rate"]), int(problem["steps"])

    def compute():
        ends = []
        for inner in starts:
            k, d = inner.shape
            layer = torch.nn.Linear(d, k, bias=False, dtype=inner.dtype)
            with torch.no_grad():
                layer.weight.copy_(inner)
            optimiser = torch.optim.SGD(layer.parameters(), lr=rate)
            for _ in range(steps):
                optimiser.zero_grad()
                residual = torch.relu(layer(inputs)) @ outer - targets
                (0.5 * (residual**2).sum()).backward()
                optimiser.step()
            ends.append(layer.weight.detach())
        return {"inner": torch.stack(ends)}

    return compute
