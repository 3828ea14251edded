"""How training moves: gradient descent as one compiled scan."""

from jaxrelu.dynamics._descent import (
    Trajectory as Trajectory,
    gradient_descent as gradient_descent,
)
