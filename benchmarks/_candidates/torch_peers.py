# pyright: reportMissingImports=false
"""PyTorch: nngeometry, torch.func, and the rates of its own libraries."""

import time

import torch


_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _tensors(problem, dtype):
    return tuple(
        torch.as_tensor(
            problem[name].astype(dtype), dtype=getattr(torch, dtype), device=_DEVICE
        )
        for name in ("inner", "outer", "inputs")
    )


def _done(**tensors):
    if _DEVICE == "cuda":
        torch.cuda.synchronize()
    return tensors


def _values_of(gram):
    return torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()


class _Batches(torch.utils.data.DataLoader):
    """Slices of one tensor: a plain DataLoader would collate sample by sample."""

    def __init__(self, inputs, size):
        super().__init__(torch.utils.data.TensorDataset(inputs), batch_size=size)
        self.slices = inputs.split(size)

    def __iter__(self):
        return iter([(part.detach(),) for part in self.slices])


def _nngeometry_gram(problem, dtype):
    from nngeometry.gram import GramMatrix
    from nngeometry.layercollection import LayerCollection

    inner, outer, inputs = _tensors(problem, dtype)
    layer = torch.nn.Linear(inner.shape[1], inner.shape[0], bias=False)
    layer = layer.to(dtype=inner.dtype, device=_DEVICE)
    with torch.no_grad():
        layer.weight.copy_(inner)
    model = torch.nn.Sequential(layer, torch.nn.ReLU())
    # Only the inner layer is trained: the outer weights stay outside the collection.
    layers = LayerCollection.from_model(model)
    n = len(inputs)

    def gram(batches):
        matrix = GramMatrix(
            model,
            batches,
            function=lambda x: (model(x) @ outer)[:, None],
            layer_collection=layers,
        )
        return matrix.to_torch().reshape(n, n)

    def seconds(batches):
        laps = []
        for _ in range(2):
            start = time.perf_counter()
            _done(gram=gram(batches))
            laps.append(time.perf_counter() - start)
        return min(laps)

    # Several batches halve its products but repeat its passes: it gets the best size.
    best = min((_Batches(inputs, n // parts) for parts in (1, 2, 4)), key=seconds)
    return lambda: gram(best)


def nngeometry(problem, dtype):
    """Layer-wise Gram matrix by nngeometry, torch.linalg.eigvalsh."""
    gram = _nngeometry_gram(problem, dtype)
    return lambda: _done(values=_values_of(gram()))


def nngeometry_gram(problem, dtype):
    """Layer-wise Gram matrix by nngeometry, alone."""
    gram = _nngeometry_gram(problem, dtype)
    return lambda: _done(gram=gram())


def torch_func(problem, dtype):
    """torch.func: vmap(jacrev) over samples, Gram matrix, torch.linalg.eigvalsh."""
    inner, outer, inputs = _tensors(problem, dtype)

    def network(inner, x):
        return torch.relu(inner @ x) @ outer

    per_sample = torch.func.vmap(torch.func.jacrev(network), in_dims=(None, 0))

    def run():
        jacobian = per_sample(inner, inputs).reshape(len(inputs), -1)
        return _done(values=_values_of(jacobian @ jacobian.T))

    return run


def eigvalsh(problem, dtype):
    """torch.linalg.eigvalsh of the given Gram matrix (MKL or cuSOLVER)."""
    inner, outer, inputs = _tensors(problem, dtype)
    factor = (inputs @ inner.T > 0).to(inner.dtype) * outer
    gram = (inputs @ inputs.T) * (factor @ factor.T)
    return lambda: _done(values=_values_of(gram))


def gemm(problem, dtype):
    """Square matrix product: the machine's rate in PyTorch."""
    n = len(problem["inputs"])
    left, right = (
        torch.randn(n, n, dtype=getattr(torch, dtype), device=_DEVICE) for _ in "ab"
    )

    def run():
        torch.mm(left, right)
        _done()
        return {"flop": 2.0 * n**3}

    return run
