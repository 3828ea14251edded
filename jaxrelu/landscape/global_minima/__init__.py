"""Global minima of the population loss: their spectra, and what fails at them."""

from jaxrelu.landscape.global_minima._convexity_failures import (
    OpenedPair as OpenedPair,
    cubic_decay_constant as cubic_decay_constant,
    cubic_growth_constant as cubic_growth_constant,
    opened_pair as opened_pair,
    tilt_curvature as tilt_curvature,
    toy_valley as toy_valley,
)
from jaxrelu.landscape.global_minima._direction_search import (
    SlackStatistic as SlackStatistic,
    WorstDirection as WorstDirection,
    sample_displacement as sample_displacement,
    slack_statistic as slack_statistic,
    worst_direction as worst_direction,
)
from jaxrelu.landscape.global_minima._full_spectrum import (
    hessian_spectrum as hessian_spectrum,
)
from jaxrelu.landscape.global_minima._global_minima import (
    GlobalMinimumTest as GlobalMinimumTest,
    global_minimum as global_minimum,
    is_global_minimum as is_global_minimum,
    sample_global_minimum as sample_global_minimum,
)
from jaxrelu.landscape.global_minima._global_spectrum import (
    coupling_spectrum as coupling_spectrum,
    global_minimum_spectrum as global_minimum_spectrum,
    pulled_back_hessian as pulled_back_hessian,
    split_minimum_spectrum as split_minimum_spectrum,
    strong_convexity_constant as strong_convexity_constant,
)
from jaxrelu.landscape.global_minima._most_directions import (
    ConjectureCounterexample as ConjectureCounterexample,
    MostDirections as MostDirections,
    conjecture_counterexample as conjecture_counterexample,
    most_directions_inequality as most_directions_inequality,
    transposed_product_bound as transposed_product_bound,
)
from jaxrelu.landscape.global_minima._neighbourhoods import (
    Neighbourhood as Neighbourhood,
)
from jaxrelu.landscape.global_minima._parallel_pair import (
    ParallelPair as ParallelPair,
    parallel_pair as parallel_pair,
)
