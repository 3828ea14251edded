"""jaxrelu's Hessians, called the way its documentation says."""

import jax

import jaxrelu as jr


def _population(problem, dtype):
    put = lambda name: jax.device_put(problem[name].astype(dtype))
    teacher = jr.Shallow(put("teacher"), jax.numpy.ones(len(problem["teacher"]), dtype))
    return jr.PopulationLoss(teacher), put("inner"), put("direction")


def population(problem, dtype):
    """Dense Hessian of the population loss under jax.jit, as its rivals are."""
    loss, inner, _ = _population(problem, dtype)
    dense = jax.jit(lambda loss, w: jr.hessian(loss, w).as_matrix())
    return lambda: {"hessian": dense(loss, inner).block_until_ready()}


def population_eager(problem, dtype):
    """The same outside of jit, with its checks at every call."""
    loss, inner, _ = _population(problem, dtype)

    def run():
        return {"hessian": jr.hessian(loss, inner).as_matrix().block_until_ready()}

    return run


def population_product(problem, dtype):
    """Product with that Hessian, which is not formed."""
    loss, inner, direction = _population(problem, dtype)
    vector = direction.reshape(-1)
    product = jax.jit(lambda loss, w, u: jr.hessian(loss, w).mv(u))

    def run():
        return {"product": product(loss, inner, vector).block_until_ready()}

    return run


def _empirical(problem, dtype):
    put = lambda name: jax.device_put(problem[name].astype(dtype))
    network = jr.Shallow(put("inner"), put("outer"))
    data = jr.data.Dataset(put("inputs"), put("targets"))
    return jr.SquaredLoss(data), network


def empirical(problem, dtype):
    """Dense Hessian of the squared loss under jax.jit, as its rivals are."""
    loss, network = _empirical(problem, dtype)
    dense = jax.jit(lambda loss, network: jr.hessian(loss, network).as_matrix())
    return lambda: {"hessian": dense(loss, network).block_until_ready()}


def empirical_eager(problem, dtype):
    """The same outside of jit, with its checks at every call."""
    loss, network = _empirical(problem, dtype)

    def run():
        return {"hessian": jr.hessian(loss, network).as_matrix().block_until_ready()}

    return run


def census(problem, dtype):
    """find_critical_points from many starts: to 1e-12, classified, without repeats."""
    from jaxrelu.landscape import find_critical_points

    k, d = problem["teacher"].shape
    loss = jr.PopulationLoss(jr.Shallow.orthonormal(k, d, dtype))
    n, starts = int(problem["neurons"]), int(problem["starts"])

    def run():
        points = find_critical_points(loss, jax.random.key(0), n, starts)
        reached = jax.numpy.sum(points.class_of >= 0)
        weights = jax.block_until_ready(points.weights)
        return {"weights": weights, "reached": reached, "starts": starts}

    return run


def type_two(problem, dtype):
    """All eigenvalues of the Hessian at the type II minimum, with multiplicities."""
    del dtype  # its own high precision
    from jaxrelu.landscape import symmetric_minimum

    k = int(problem["k"])

    def run():
        spectrum = symmetric_minimum("II", k=k).hessian_spectrum()
        values, error = jax.block_until_ready((spectrum.values, spectrum.error))
        return {"values": values, "error": error, "total": float(spectrum.total)}

    return run
