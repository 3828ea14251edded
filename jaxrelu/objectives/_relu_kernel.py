r"""The ReLU kernel $f(w, v) = E\,\sigma(w \cdot x)\sigma(v \cdot x)$, Gaussian inputs.

With $\theta$ the angle between $w$ and $v$, $\delta = \pi - \theta$, $\bar w = w/|w|$
and $n_{v,w} = \bar v - \cos\theta\, \bar w$ (of norm $\sin\theta$):
$$ f = \frac{|w||v|}{2\pi} (\sin\delta - \delta\cos\delta), \qquad
   g = \frac{\partial f}{\partial w}
     = \frac{|v| \sin\theta\, \bar w + \delta v}{2\pi}, $$
$$ h_1 = \frac{\partial^2 f}{\partial w^2} = \frac{|v| \sin\theta}{2\pi |w|}
     \Bigl( I - \bar w \bar w^\top
     + \frac{n_{v,w} n_{v,w}^\top}{\sin^2\theta} \Bigr), $$
$$ h_2 = \frac{\partial^2 f}{\partial w\, \partial v} = \frac{1}{2\pi} \Bigl( \delta I
     + \tfrac12 \tan\tfrac\theta2\, P P^\top
     - \tfrac12 \cot\tfrac\theta2\, Q Q^\top \Bigr), \qquad
   P = \bar w + \bar v,\ Q = \bar w - \bar v . $$
All four are continuous where $w, v \ne 0$, parallel and antiparallel vectors included:
there $h_1 = 0$, and $h_2$ is $I/2$ or 0. The third derivatives are not.
"""

from typing import Any

from jaxtyping import Array, Float

from jaxrelu.activations import ReLU, dual_kernel


def relu_kernel(w: Any, v: Any = None) -> Float[Array, "n k"]:
    r"""$f(w_i, v_j) = E\,\sigma(w_i \cdot x)\,\sigma(v_j \cdot x)$, $x \sim N(0, I_d)$.

    $f = \frac{|w||v|}{2\pi}(\sin\theta + (\pi - \theta)\cos\theta)$, within a few
    roundings of $|w||v|$. The first two derivatives are right everywhere but at zero
    vectors, at parallel and antiparallel ones too, within a few roundings of $|v|$ and
    $1 + |v|/|w|$. At a zero vector the first is given as 0. The third does not exist at
    parallel vectors.

    Args:
        w: (n, d), one vector per row.
        v: (k, d); ``w`` again if None.

    Raises:
        TypeError: integer input.
        ValueError: wrong shapes, dtypes that differ.

    Cost: 2nkd operations.
    """
    return dual_kernel(ReLU(), w, v)
