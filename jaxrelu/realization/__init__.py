"""Realisations of shallow ReLU networks: cells, Sobolev norms, distances."""

from jaxrelu.realization._arrangement import num_cells as num_cells
from jaxrelu.realization._bounds import Bounds as Bounds, bounds as bounds
from jaxrelu.realization._canonical import (
    CanonicalForm as CanonicalForm,
    Equality as Equality,
    ExactForm as ExactForm,
    canonical as canonical,
    canonical_exact as canonical_exact,
    equal as equal,
)
from jaxrelu.realization._cells import Cells as Cells, cells as cells
from jaxrelu.realization._dimension import (
    FunctionalDimension as FunctionalDimension,
    functional_dimension as functional_dimension,
)
from jaxrelu.realization._extremal import (
    extremal_pair as extremal_pair,
    unbalanced_vector_pair as unbalanced_vector_pair,
)
from jaxrelu.realization._fibre import (
    FibreDistance as FibreDistance,
    bottleneck_assignment as bottleneck_assignment,
    fibre_distance as fibre_distance,
    parameter_distance as parameter_distance,
)
from jaxrelu.realization._inverse_stability import (
    Hypothesis as Hypothesis,
    InverseStability as InverseStability,
    direction_radius as direction_radius,
    inverse_stable as inverse_stable,
)
from jaxrelu.realization._minima import (
    LocalMinimum as LocalMinimum,
    almost_optimality_gap as almost_optimality_gap,
    dead_neuron_minimum as dead_neuron_minimum,
    parameter_radius as parameter_radius,
    realization_radius as realization_radius,
    restricted_minimum as restricted_minimum,
)
from jaxrelu.realization._minimal import (
    MinimalWidth as MinimalWidth,
    flip_fibre as flip_fibre,
    minimal_network as minimal_network,
    minimal_width as minimal_width,
    with_signs as with_signs,
)
from jaxrelu.realization._norms import Norm as Norm
from jaxrelu.realization._pathologies import (
    PATHOLOGIES as PATHOLOGIES,
    Pathology as Pathology,
    complete_unbalancedness as complete_unbalancedness,
    exploding_gradient as exploding_gradient,
    opposite_networks as opposite_networks,
    opposite_vectors as opposite_vectors,
    redundant_directions as redundant_directions,
    unbalancedness as unbalancedness,
)
from jaxrelu.realization._paths import (
    PathBound as PathBound,
    path_bound as path_bound,
    path_lifting as path_lifting,
    path_norm as path_norm,
)
from jaxrelu.realization._recovery import (
    Recovery as Recovery,
    gradient_queries as gradient_queries,
    recover as recover,
)
from jaxrelu.realization._restricted import (
    Membership as Membership,
    balance as balance,
    extend_inputs as extend_inputs,
    from_restricted as from_restricted,
    is_restricted as is_restricted,
    merge as merge,
    to_restricted as to_restricted,
)
from jaxrelu.realization._seminorm import (
    distance as distance,
    seminorm as seminorm,
)
from jaxrelu.realization._skip import (
    SkipDistance as SkipDistance,
    SkipForm as SkipForm,
    skip_distance as skip_distance,
    skip_normal_form as skip_normal_form,
)
from jaxrelu.realization._smooth import (
    sampled_seminorm as sampled_seminorm,
    smooth_seminorm as smooth_seminorm,
)
from jaxrelu.realization._supnorm import (
    sobolev_norm as sobolev_norm,
    supnorm as supnorm,
)
from jaxrelu.realization._symmetry import (
    Symmetry as Symmetry,
    permute as permute,
    rescale as rescale,
)
from jaxrelu.realization._training import (
    RestrictedCoordinates as RestrictedCoordinates,
    keep_restricted as keep_restricted,
    project_restricted as project_restricted,
    restriction_penalty as restriction_penalty,
)
from jaxrelu.realization._value import (
    cell_jacobian as cell_jacobian,
    seminorm_value as seminorm_value,
)
