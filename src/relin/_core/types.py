"""Names for the types that cross module boundaries."""

from typing import Any

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

Params = PyTree[Array]
"""θ, an anchor or a displacement: any PyTree of floating-point arrays, seen as one vector."""

Inputs = PyTree[Shaped[Array, "batch ..."]]
Outputs = Float[Array, "batch ..."]
"""Shape `(batch, C)`, or `(batch, …)`; C is then the product of the further axes."""
Targets = PyTree[Shaped[Array, "batch ..."]]
Scalar = Float[Array, ""]
Step = Int[Array, ""] | int
Flag = Bool[Array, ""] | bool
Flags = Bool[Array, "*parts"] | bool
"""One flag, or one for each part of the parameters."""
Key = PRNGKeyArray
State = Any
