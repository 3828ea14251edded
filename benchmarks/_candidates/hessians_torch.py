# pyright: reportMissingImports=false
"""Hessians by PyTorch: torch.func and curvlinops."""

import math

import torch


_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _tensors(problem, dtype, *names):
    return tuple(
        torch.as_tensor(
            problem[name].astype(dtype), dtype=getattr(torch, dtype), device=_DEVICE
        )
        for name in names
    )


def _done(**tensors):
    if _DEVICE == "cuda":
        torch.cuda.synchronize()
    return tensors


def _kernel(w, v):
    sizes = w.norm(dim=1)[:, None] * v.norm(dim=1)[None]
    dots = w @ v.T
    cosine = dots / sizes
    proper = 1 - cosine**2 > 16 * torch.finfo(w.dtype).eps
    safe = torch.where(proper, cosine, torch.zeros_like(cosine))
    ends = torch.where(cosine > 0, 0.0, math.pi).to(w.dtype)
    angle = torch.where(proper, torch.arccos(safe), ends)
    sine = torch.where(proper, torch.sqrt(1 - safe**2), torch.zeros_like(safe))
    return (sizes * sine + (math.pi - angle) * dots) / (2 * math.pi)


def population(problem, dtype):
    """torch.func.hessian of the double-where loss."""
    w, v = _tensors(problem, dtype, "inner", "teacher")

    def loss(w):
        return 0.5 * _kernel(w, w).sum() - _kernel(w, v).sum()

    dense = torch.func.hessian(loss)
    return lambda: _done(hessian=dense(w).detach().reshape(w.numel(), w.numel()))


def population_product(problem, dtype):
    """torch.func.jvp of torch.func.grad of the double-where loss."""
    w, v, u = _tensors(problem, dtype, "inner", "teacher", "direction")

    def loss(w):
        return 0.5 * _kernel(w, w).sum() - _kernel(w, v).sum()

    gradient = torch.func.grad(loss)

    def run():
        return _done(product=torch.func.jvp(gradient, (w,), (u,))[1].reshape(-1))

    return run


def empirical(problem, dtype):
    """torch.func.hessian of the squared loss over the data."""
    names = ("inner", "outer", "inputs", "targets")
    inner, outer, inputs, targets = _tensors(problem, dtype, *names)

    def loss(inner):
        residual = torch.relu(inputs @ inner.T) @ outer - targets
        return 0.5 * (residual**2).sum()

    dense = torch.func.hessian(loss)
    size = inner.numel()
    return lambda: _done(hessian=dense(inner).detach().reshape(size, size))


def curvlinops(problem, dtype):
    """HessianLinearOperator of curvlinops, times the identity."""
    from curvlinops import HessianLinearOperator

    names = ("inner", "outer", "inputs", "targets")
    inner, outer, inputs, targets = _tensors(problem, dtype, *names)
    layer = torch.nn.Linear(inner.shape[1], inner.shape[0], bias=False)
    last = torch.nn.Linear(inner.shape[0], 1, bias=False)
    model = torch.nn.Sequential(layer, torch.nn.ReLU(), last)
    model = model.to(dtype=inner.dtype, device=_DEVICE)
    with torch.no_grad():
        layer.weight.copy_(inner)
        last.weight.copy_(outer[None])
    identity = torch.eye(inner.numel(), dtype=inner.dtype, device=_DEVICE)
    operator = HessianLinearOperator(
        model,
        torch.nn.MSELoss(reduction="sum"),  # twice our loss
        [layer.weight],
        [(inputs, targets[:, None])],
        check_deterministic=False,
    )
    return lambda: _done(hessian=0.5 * (operator @ identity).detach())
