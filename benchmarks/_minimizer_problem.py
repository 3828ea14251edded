"""Global minimisers of linear networks, and the spectra there from explicit rows."""

import numpy as np


Problem = dict[str, np.ndarray]


def minimizer_problem(size: int, depth: int, seed: int = 0) -> Problem:
    """A square linear network that fits its 2d samples, singular values near 1.

    The layers are $Qe^{D}$ with Q uniform orthogonal and D uniform in ± 1/depth.
    """
    rng = np.random.default_rng([seed, size, depth])
    layers = []
    for _ in range(depth):
        basis, _ = np.linalg.qr(rng.standard_normal((size, size)))
        layers.append(basis * np.exp(rng.uniform(-1, 1, size) / depth))
    inputs = rng.standard_normal((2 * size, size)) / np.sqrt(2 * size)
    outputs = inputs
    for layer in layers:
        outputs = outputs @ layer.T
    return {"layers": np.stack(layers), "inputs": inputs, "targets": outputs}


def numpy_spectrum(problem: Problem) -> np.ndarray:
    r"""The $d^2$ non-zero eigenvalues, ascending: squares of singular values of J.

    J from explicit rows, $A_k \otimes B_kx_i$; no Gram matrix is formed.
    """
    layers, inputs = problem["layers"], problem["inputs"]
    size = inputs.shape[1]
    blocks = []
    for k in range(len(layers)):
        above, below = np.eye(size), inputs
        for layer in layers[k + 1 :]:
            above = layer @ above
        for layer in layers[:k]:
            below = below @ layer.T
        block = np.einsum("oa,ib->ioab", above, below)
        blocks.append(block.reshape(len(inputs) * size, size * size))
    values = np.linalg.svd(np.concatenate(blocks, axis=1), compute_uv=False)
    return np.sort(values[: size * size] ** 2)
