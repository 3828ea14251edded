"""The algebra of structured linear operators: Jacobians by their thin factors."""

from jaxrelu.operators._interface import (
    AbstractOperator as AbstractOperator,
    Transpose as Transpose,
    gram as gram,
    matmat as matmat,
)
