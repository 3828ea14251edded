"""The algebra of structured linear operators: Jacobians by their thin factors."""

from jaxrelu.operators._autodiff import (
    AutodiffCurvature as AutodiffCurvature,
    AutodiffJacobian as AutodiffJacobian,
)
from jaxrelu.operators._curvature import LayeredCurvature as LayeredCurvature
from jaxrelu.operators._empirical_hessian import (
    EmpiricalHessian as EmpiricalHessian,
    GaussNewton as GaussNewton,
    gauss_newton as gauss_newton,
)
from jaxrelu.operators._expected import (
    expected_gram as expected_gram,
    neural_covariance as neural_covariance,
)
from jaxrelu.operators._hessian import hessian as hessian
from jaxrelu.operators._interface import (
    AbstractOperator as AbstractOperator,
    AbstractSymmetricOperator as AbstractSymmetricOperator,
    Transpose as Transpose,
    cross_gram as cross_gram,
    gram as gram,
    matmat as matmat,
)
from jaxrelu.operators._jacobian import jacobian as jacobian
from jaxrelu.operators._khatri_rao import (
    GatedKhatriRao as GatedKhatriRao,
    KhatriRao as KhatriRao,
    Kronecker as Kronecker,
)
from jaxrelu.operators._patterns import common_ones as common_ones
from jaxrelu.operators._population_hessian import (
    PopulationHessian as PopulationHessian,
)
from jaxrelu.operators._stacks import (
    BlockDiagonal as BlockDiagonal,
    HStack as HStack,
    VStack as VStack,
)
