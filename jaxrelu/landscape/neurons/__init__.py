"""One more neuron: split, added, and the ways down."""

from jaxrelu.landscape.neurons._escape import (
    Escape as Escape,
    escape as escape,
)
from jaxrelu.landscape.neurons._new_neuron import (
    NewNeuronDescent as NewNeuronDescent,
    OriginMaximum as OriginMaximum,
    new_neuron_descent as new_neuron_descent,
    origin_maximum as origin_maximum,
)
from jaxrelu.landscape.neurons._split import (
    SplitVerdict as SplitVerdict,
    add_neuron as add_neuron,
    split as split,
    split_hessian as split_hessian,
    split_verdict as split_verdict,
)
