"""The population loss from its definition, in many digits, differences included."""

import mpmath as mp
import numpy as np


DIGITS = 120
STEP = mp.mpf(10) ** -20


def exact(x):
    """A float array as lists of mpf."""
    return [[mp.mpf(float(t)) for t in row] for row in np.asarray(x, float)]


def kernel(w, v):
    r"""E relu(w.x) relu(v.x): the angular integral done, in polar coordinates."""
    p, q = mp.norm(w), mp.norm(v)
    if p == 0 or q == 0:
        return mp.mpf(0)
    cos = mp.fdot(w, v) / (p * q)
    sin = mp.sqrt(max(1 - cos * cos, 0))
    return p * q * (sin + (mp.pi - mp.atan2(sin, cos)) * cos) / (2 * mp.pi)


def kernel_by_quadrature(w, v):
    r"""$E r^2/2 = 1$ times the mean over directions, without the integral done."""
    p, q = mp.norm(w), mp.norm(v)
    theta = mp.acos(mp.fdot(w, v) / (p * q))
    inside = lambda t: mp.cos(t) * mp.cos(t - theta)
    return p * q / mp.pi * mp.quad(inside, [theta - mp.pi / 2, mp.pi / 2])


def loss(w, a, v, b, among=frozenset()):
    """F, or those of its terms in which all the neurons ``among`` stand."""
    rows, weights = w + v, [*a, *(-t for t in b)]
    total = mp.mpf(0)
    for i, row in enumerate(rows):
        if among <= {i}:
            total += weights[i] ** 2 * mp.fdot(row, row) / 4
        total += weights[i] * mp.fsum(
            weights[j] * kernel(row, rows[j]) for j in range(i) if among <= {i, j}
        )
    return total


def angle(w, v):
    a, b = w / np.linalg.norm(w), v / np.linalg.norm(v)
    return 2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b))


def across(w, v):
    """Unit component of v orthogonal to w; 0 where they are parallel."""
    a = w / np.linalg.norm(w)
    rest = v - (v @ a) * a
    norm = np.linalg.norm(rest)
    return rest / norm if norm > 1e-12 else 0 * rest


def second_own(w, v):
    """Second derivative of f(w, v) by w."""
    a, n = w / np.linalg.norm(w), across(w, v)
    weight = np.sin(angle(w, v)) * np.linalg.norm(v) / (2 * np.pi * np.linalg.norm(w))
    return weight * (np.eye(len(w)) - np.outer(a, a) + np.outer(n, n))


def second_mixed(w, v):
    """Derivative of f(w, v) by w and v."""
    a, b = w / np.linalg.norm(w), v / np.linalg.norm(v)
    whole = (np.pi - angle(w, v)) * np.eye(len(w))
    return (whole + np.outer(across(v, w), b) + np.outer(across(w, v), a)) / (2 * np.pi)


def dense_hessian(weights, teacher=None):
    """∇²F in NumPy; the teacher is orthonormal, as many neurons, unless it is given."""
    n, d = weights.shape
    teacher = np.eye(d)[:n] if teacher is None else teacher
    blocks = np.zeros((n, n, d, d))
    for i in range(n):
        blocks[i, i] = np.eye(d) / 2
        blocks[i, i] -= sum(second_own(weights[i], v) for v in teacher)
        for j in range(n):
            if j != i:
                blocks[i, i] += second_own(weights[i], weights[j])
                blocks[i, j] = second_mixed(weights[i], weights[j])
    return blocks.transpose(0, 2, 1, 3).reshape(n * d, n * d)


class Oracle:
    """F, its gradient and Hessian by central differences of F in 120 digits."""

    def __init__(self, w, a, v, b):
        self.shape = np.shape(w)
        with mp.workdps(DIGITS):
            self.w, self.v = exact(w), exact(v)
            self.a = [mp.mpf(float(t)) for t in a]
            self.b = [mp.mpf(float(t)) for t in b]

    def at(self, *moves, among=frozenset()):
        """F with some entries of W moved by (i, a, step)."""
        w = [list(row) for row in self.w]
        for i, c, step in moves:
            w[i][c] += step
        return loss(w, self.a, self.v, self.b, among)

    def change(self, *moves):
        """`at` up to terms without some moved neuron, which no mixed difference has."""
        return self.at(*moves, among={i for i, _, _ in moves})

    def value(self):
        with mp.workdps(DIGITS):
            return self.at()

    def gradient(self):
        n, d = self.shape
        out = np.zeros((n, d))
        with mp.workdps(DIGITS):
            for i in range(n):
                for c in range(d):
                    up, down = self.change((i, c, STEP)), self.change((i, c, -STEP))
                    out[i, c] = float((up - down) / (2 * STEP))
        return out

    def hessian(self):
        n, d = self.shape
        places = [(i, c) for i in range(n) for c in range(d)]
        out = np.zeros((n * d, n * d))
        with mp.workdps(DIGITS):
            for s, one in enumerate(places):
                for t, two in enumerate(places[: s + 1]):
                    corner = lambda x, y, one=one, two=two: self.change(
                        (*one, x * STEP), (*two, y * STEP)
                    )
                    twist = corner(1, 1) - corner(1, -1) - corner(-1, 1)
                    twist += corner(-1, -1)
                    out[s, t] = out[t, s] = float(twist / (4 * STEP**2))
        return out

    def one_sided(self, direction):
        """(F(W + tU) - F(W))/t at t = 1e-30."""
        t = mp.mpf(10) ** -30
        with mp.workdps(DIGITS):
            u = exact(direction)
            moves = [
                (i, c, t * u[i][c])
                for i in range(self.shape[0])
                for c in range(self.shape[1])
            ]
            return float((self.at(*moves) - self.at()) / t)
