"""Spectra of linear operators, each number with a bound on its error."""

from jaxrelu.spectra._dense import (
    Spectrum as Spectrum,
    eigvalsh as eigvalsh,
    spectrum as spectrum,
)
from jaxrelu.spectra._extreme import Extreme as Extreme, extreme as extreme
