r"""Figures of measurement beside theory, drawn with Matplotlib.

Every function draws on the axes it is given, or on a new figure, and returns the
`matplotlib.figure.Figure`. None touches pyplot, the backend or `rcParams`, so nothing
depends on a display and nothing is left behind; `png` turns a figure into bytes.

What a line style means is the same everywhere:

* solid lines and markers: measured; bars and bands are the error;
* dashed: predicted, under assumptions that the caption names;
* dotted grey: guaranteed, an inequality.
"""

from jaxrelu.figures._comparison import (
    PowerLaw as PowerLaw,
    fit_power_law as fit_power_law,
    plot_comparison as plot_comparison,
    plot_scaling as plot_scaling,
)
from jaxrelu.figures._constants import (
    plot_bounds as plot_bounds,
    plot_depth as plot_depth,
    plot_ratio as plot_ratio,
)
from jaxrelu.figures._landscape import (
    plot_families as plot_families,
    plot_multiplicities as plot_multiplicities,
    plot_slice as plot_slice,
    plot_weights as plot_weights,
)
from jaxrelu.figures._phase import (
    plot_success as plot_success,
    plot_transition as plot_transition,
)
from jaxrelu.figures._realization import (
    plot_cells as plot_cells,
    plot_inverse_stability as plot_inverse_stability,
    plot_pathologies as plot_pathologies,
)
from jaxrelu.figures._spectra import (
    plot_density as plot_density,
    plot_spectrum as plot_spectrum,
    plot_trajectory as plot_trajectory,
)
from jaxrelu.figures._style import (
    colours as colours,
    panels as panels,
    png as png,
)
