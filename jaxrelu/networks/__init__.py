"""Networks whose weights enter through matrix products, and their Jacobian factors."""

from jaxrelu.networks._base import (
    AbstractNetwork as AbstractNetwork,
    GatedFactors as GatedFactors,
    LayerFactors as LayerFactors,
    check_inputs as check_inputs,
    where_spec as where_spec,
)
from jaxrelu.networks._deep import (
    DenseNetwork as DenseNetwork,
    LinearNetwork as LinearNetwork,
    LinearResidualNetwork as LinearResidualNetwork,
)
from jaxrelu.networks._initializers import (
    inner_weights as inner_weights,
    outer_weights as outer_weights,
)
from jaxrelu.networks._kinks import NearKinks as NearKinks, near_kinks as near_kinks
from jaxrelu.networks._shallow import Shallow as Shallow
