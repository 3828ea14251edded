"""Real data that come with scikit-learn: nothing is downloaded.

None of the three sets has two identical rows, nor two parallel ones.
"""

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from jaxrelu._checks import check_choice
from jaxrelu.data._arguments import floating_dtype
from jaxrelu.data._dataset import Dataset
from jaxrelu.data._labels import signs


def _load(name: str) -> Any:
    try:
        from sklearn import datasets
    except ImportError as error:
        msg = (
            f"data.{name}() reads a set that comes with scikit-learn, which is not "
            'installed. Run: pip install "jaxrelu[data]"'
        )
        raise ImportError(msg) from error
    return getattr(datasets, f"load_{name}")()


def _dataset(
    name: str, inputs: np.ndarray, targets: Any, dtype: Any, normalise: bool
) -> Dataset:
    dtype = floating_dtype(dtype)
    data = Dataset(jnp.asarray(inputs, dtype), jnp.asarray(targets, dtype), name=name)
    return data.normalise() if normalise else data


def _standardised(columns: np.ndarray) -> np.ndarray:
    return (columns - columns.mean(axis=0)) / columns.std(axis=0)


def digits(
    target: Literal["parity", "value", "one_hot"] = "parity",
    *,
    classes: tuple[int, int] | None = None,
    normalise: bool = True,
    dtype: Any = None,
) -> Dataset:
    r"""Handwritten digits: 1797 images of 8 × 8 pixels (d = 64).

    Inputs are the pixels divided by 16, so in [0, 1], then scaled to unit rows. Three
    border pixels are 0 in every image, so the inputs have rank 61.

    Args:
        target: ``"parity"``, +1 for even digits and −1 for odd ones; ``"value"``, the
            digit itself as a number; ``"one_hot"``, shape (n, 10).
        classes: two digits (a, b): only their images are kept, in their order, with
            targets +1 for a and −1 for b. Excludes another ``target``.
        normalise: scale rows to unit length.
        dtype: floating dtype; default the current default float.

    Raises:
        ImportError: scikit-learn is missing.
        ValueError: unknown target or classes.
    """
    check_choice(target, ("parity", "value", "one_hot"), "target")
    if classes is not None:
        valid = len(classes) == 2 and len(set(classes) & set(range(10))) == 2
        if not valid or target != "parity":
            msg = (
                f"classes is {classes} with target {target!r}; expected two different "
                "digits from 0 to 9, and no target. Pass for example classes=(3, 8)."
            )
            raise ValueError(msg)
    bunch = _load("digits")
    inputs, digit = bunch.data / 16, bunch.target
    if classes is not None:
        kept = np.isin(digit, classes)
        return _dataset(
            f"digits {classes[0]} and {classes[1]}",
            inputs[kept],
            signs(digit[kept] == classes[0]),
            dtype,
            normalise,
        )
    targets = {
        "parity": 1 - 2 * (digit % 2),
        "value": digit,
        "one_hot": digit[:, None] == np.arange(10)[None],
    }[target]
    return _dataset("digits", inputs, targets, dtype, normalise)


def breast_cancer(*, normalise: bool = True, dtype: Any = None) -> Dataset:
    r"""Breast cancer in Wisconsin: 569 tumours, 30 measurements (d = 30).

    Each measurement is standardised (mean 0, variance 1 over the samples, in float64),
    then rows are scaled to unit length. Targets: +1 benign (357), −1 malignant (212).

    Args:
        normalise: scale rows to unit length.
        dtype: floating dtype; default the current default float.

    Raises:
        ImportError: scikit-learn is missing.
    """
    bunch = _load("breast_cancer")
    return _dataset(
        "breast_cancer",
        _standardised(bunch.data),
        2 * bunch.target - 1,
        dtype,
        normalise,
    )


def diabetes(*, normalise: bool = True, dtype: Any = None) -> Dataset:
    r"""Progression of diabetes in 442 patients from 10 measurements (d = 10).

    Each measurement is standardised (mean 0, variance 1 over the samples, in float64),
    then rows are scaled to unit length. The regression target is standardised too.

    Args:
        normalise: scale rows to unit length.
        dtype: floating dtype; default the current default float.

    Raises:
        ImportError: scikit-learn is missing.
    """
    bunch = _load("diabetes")
    return _dataset(
        "diabetes",
        _standardised(bunch.data),
        _standardised(bunch.target),
        dtype,
        normalise,
    )
