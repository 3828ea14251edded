"""Shares of runs with their binomial uncertainty."""

from typing import NamedTuple

import numpy as np


_NORMAL_95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


class Share(NamedTuple):
    """A share of runs.

    Attributes:
        count: how many.
        total: of how many.
        low: lower end of Wilson's interval, 95 %.
        high: its upper end.
    """

    count: int
    total: int
    low: float
    high: float

    @property
    def fraction(self) -> float:
        """Estimate of the probability: count over total."""
        return self.count / self.total

    def __str__(self) -> str:
        return (
            f"{100 * self.fraction:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"
        )


def share(count: int, total: int) -> Share:
    r"""A share with Wilson's 95 % interval for the probability behind it.

    With $\hat p$ = count/total and z = 1.96 the ends are
    $$\frac{\hat p + \frac{z^2}{2n} \pm z\sqrt{\frac{\hat p(1-\hat p)}{n} +
      \frac{z^2}{4n^2}}}{1 + z^2/n},$$
    the probabilities from which $\hat p$ is z standard errors away.

    Raises:
        ValueError: not $0 \le$ count $\le$ total, or no runs.
    """
    if not 0 <= count <= total or total < 1:
        msg = f"count is {count} of {total}; expected 0 <= count <= total, total >= 1."
        raise ValueError(msg)
    p, z2 = count / total, _NORMAL_95**2
    middle = p + z2 / (2 * total)
    half = _NORMAL_95 * np.sqrt(p * (1 - p) / total + z2 / (4 * total**2))
    low, high = (middle + np.array([-half, half])) / (1 + z2 / total)
    low = 0.0 if count == 0 else float(low)
    return Share(count, total, low, 1.0 if count == total else float(high))


def z_score(one: Share, two: Share) -> float:
    r"""How many standard errors lie between two shares.

    $(\hat p_1 - \hat p_2)/\sqrt{\hat p(1 - \hat p)(1/n_1 + 1/n_2)}$ with the pooled
    $\hat p$: standard normal, for large counts, if both shares come from one
    probability; 0 where all runs of both, or none, count.
    """
    pooled = (one.count + two.count) / (one.total + two.total)
    variance = pooled * (1 - pooled) * (1 / one.total + 1 / two.total)
    if variance == 0:
        return 0.0
    return float((one.fraction - two.fraction) / np.sqrt(variance))
