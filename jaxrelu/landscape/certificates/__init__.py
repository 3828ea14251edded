"""Proofs that a true local minimum is near a numerical point."""

from jaxrelu.landscape.certificates._minimum_certificate import (
    MinimumCertificate as MinimumCertificate,
    MinimumCondition as MinimumCondition,
    certify_minimum as certify_minimum,
    third_derivative_bound as third_derivative_bound,
)
