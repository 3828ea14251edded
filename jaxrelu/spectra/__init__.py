"""Spectra of linear operators, each number with a bound on its error."""

from jaxrelu.spectra._certify import (
    Certificate as Certificate,
    certify_smallest as certify_smallest,
)
from jaxrelu.spectra._dense import (
    Spectrum as Spectrum,
    eigvalsh as eigvalsh,
    spectrum as spectrum,
)
from jaxrelu.spectra._density import (
    SpectralDensity as SpectralDensity,
    density as density,
)
from jaxrelu.spectra._distinct import DistinctSpectrum as DistinctSpectrum
from jaxrelu.spectra._extreme import Extreme as Extreme, extreme as extreme
from jaxrelu.spectra._random_matrix import (
    MarchenkoPastur as MarchenkoPastur,
    marchenko_pastur as marchenko_pastur,
)
