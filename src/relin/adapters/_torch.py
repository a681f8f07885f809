"""PyTorch modules as `(apply, params)`."""

import copy
from collections.abc import Hashable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from relin._core import check as _check
from relin._core.network import Variables, described
from relin._core.types import Inputs, Key, Outputs
from relin.adapters._closed import (
    AbstractApply,
    Output,
    Statistics,
    called,
    check_mode,
    check_output,
    chosen,
    without_counting,
)
from relin.adapters._torch_module import check_as_it_is, check_hooks, check_values, copied, in_mode
from relin.adapters._torchax import check_outputs, environment, refuse_torchaxs
from relin.adapters._trainable import PartialApply, Trainable, restricted

Parameters = dict[str, Float[Array, "..."]]


class TorchApply(AbstractApply):
    """`apply(params, x)`: a PyTorch module that was separated from its parameters, run by torchax; see `AbstractApply`.

    Its constants are its buffers and the parameters that need no gradient, and where it is trained with dropout the
    key of its random numbers and how many forward passes there were. Two of them are equal only if made at once.
    """

    constants: tuple[Shaped[Array, "..."], ...]
    _modules: tuple[Any, Any] = eqx.field(static=True)
    """Copies of the module, as it is evaluated and as it is trained."""
    _structure: Any = eqx.field(static=True)
    """Of the constants: tensors by name, the key, and the number of forward passes."""
    _output: Output = eqx.field(static=True)
    _mode: tuple[bool, bool] = eqx.field(static=True)
    """Whether batch statistics and dropout are on in training."""

    def __call__(self, params: Parameters, x: Inputs) -> Outputs:
        return self._passed(self._modules[0], params, x, None, False)[0]

    @property
    def mode(self) -> str:
        return described(*self._mode)

    @property
    def variables(self) -> Variables | None:
        return self.constants if any(self._mode) else None

    def forward(self, params: Parameters, x: Inputs) -> tuple[Outputs, Variables | None]:
        if not any(self._mode):
            return self(params, x), None
        _, key, passes = self._parts()
        now = None if key is None else jax.random.fold_in(key, passes)
        outputs, after = self._passed(self._modules[1], params, x, now, self._mode[0])
        return outputs, tuple(jax.tree.leaves((after, key, passes + 1)))

    def with_variables(self, variables: Variables) -> "TorchApply":
        return eqx.tree_at(lambda apply: apply.constants, self, tuple(variables))

    def combine(self, params: Parameters) -> Any:
        """A copy of the module with these parameters, on the CPU, in evaluation mode."""
        module = copied(self._modules[0])
        module.load_state_dict(self.state_dict(params))
        return module

    def state_dict(self, params: Parameters) -> dict[str, Any]:
        """Parameters and buffers as the original module's `load_state_dict` takes them."""
        import torch

        values = {**self._parts()[0], **params}
        own = self._modules[0].state_dict(keep_vars=True)
        names = _first_names(self._modules[0])
        arrays = {name: jnp.asarray(values[names[name]], _numpys(tensor.dtype)) for name, tensor in own.items()}
        return {name: torch.from_numpy(np.array(array)).to(own[name].dtype) for name, array in arrays.items()}

    def _parts(self) -> tuple[dict[str, Array], Key | None, Any]:
        return jax.tree.unflatten(self._structure, list(self.constants))

    def _passed(
        self, module: Any, params: Parameters, x: Inputs, key: Key | None, carried: bool
    ) -> tuple[Outputs, dict[str, Array]]:
        """The outputs, and the constants after the forward pass, which moves them only where they are carried."""
        import torch
        from torchax.interop import jax_view, torch_view

        from relin.adapters._torch_rules import Pass

        others, x = self._parts()[0], jax.tree.map(jnp.asarray, x)
        given = {**others, **params}
        inputs, tensors = torch_view(x), dict[str, Any]()

        def call(*inputs: Any, **named: Any) -> Any:
            return torch.func.functional_call(module, tensors, inputs, named)

        def run() -> Any:
            tensors.update({name: torch_view(value) for name, value in given.items()})
            constants = {id(tensor) for tensor in (*jax.tree.leaves(inputs), *(tensors[name] for name in others))}
            with forward.running(environment(), constants):
                return chosen(called(call, inputs), self._output)

        forward = Pass(module, key)
        try:
            outputs = without_counting(lambda: dict(module.named_modules()), run)
        except jax.errors.ConcretizationTypeError as error:
            forward.refuse_reading(error)
        except Exception as error:
            refuse_torchaxs(error, self._wrapped())
            raise
        check_outputs(outputs, self._wrapped())
        after = {name: jax_view(tensor) for name, tensor in tensors.items()}
        moved = [name for name, value in given.items() if after[name] is not value]
        forward.check_moved(moved, set(others) if carried else set())
        return jax_view(outputs), {name: after[name] for name in others}

    def _wrapped(self) -> str:
        return type(self._modules[0]).__name__

    def _architecture(self) -> tuple[Hashable, ...]:
        return self._modules, self._structure, self._output, self._mode


def from_torch(
    module: Any,
    *,
    statistics: Statistics | None = None,
    dropout: bool = False,
    key: Key | None = None,
    output: Output = None,
    trainable: Trainable | None = None,
) -> tuple[TorchApply | PartialApply, Parameters]:
    """Separates a PyTorch module into a JAX function and its parameters, by way of torchax.

    **Arguments:**

    - `module`: a `torch.nn.Module` that is called with a batch of inputs, such as images (batch, channels, height,
      width). A tuple of inputs is spread over its arguments, a dictionary over its keywords. It is copied.
    - `statistics`: of BatchNorm in training. `"frozen"`: the running ones, which stay as they are. `"batch"`: those of
      the batch, differentiated through; the running ones are updated by the forward passes at the anchor. So are other
      buffers that a forward pass in training mode moves, such as the vectors of `spectral_norm`.
    - `dropout`: whether it is on in training, and with it every part that has no statistics; forward pass t draws from
      `jax.random.fold_in(key, t)`, the same for primal and tangent.
    - `key`: of dropout.
    - `output`: which of several outputs the loss is of: a key, a position, or a function of the outputs.
    - `trainable`: which parameters are trained, all that require a gradient if not given; see `relin.trainable`.

    With neither `statistics` nor `dropout` the module is used as it is. With either, `apply` evaluates it in evaluation
    mode, whatever its mode was. After the first call, which imports torchax, `torch.compile` fails in this process.

    **Returns:** `apply` and `params`, a dictionary of arrays by PyTorch's names. Tied weights are one array, by the
    first of their names. `module.load_state_dict(apply.state_dict(params))` puts trained ones back, with the buffers
    that training left after `apply.with_variables(solution.variables)`.

    **Raises:** `ImportError` without PyTorch or torchax; `TypeError` if `module` is no `torch.nn.Module` or a trained
    parameter is not floating-point; `ValueError` if there is none, for a module with BatchNorm or dropout in training
    mode without the arguments that say how it is trained, for lazy parameters without values, for hooks on gradients,
    and for dropout without a key; and, where `apply` is called, for a module that reads a number from a tensor
    (`.item()`, `if`), draws random numbers or moves its buffers where it was not asked to, changes its parameters, or
    uses a `torch.autograd.Function`, whose backward need not be the forward's derivative; for outputs that hold
    anything but tensors; and where torchax itself cannot run it.
    """
    environment()
    import torch

    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            f"`module` must be a torch.nn.Module, got {type(module).__name__}; use from_nnx, from_linen or "
            "from_equinox for modules of these."
        )
    check_output(output)
    check_mode(statistics, dropout)
    check_values(module)
    check_hooks(module)
    mode = statistics == "batch", dropout
    if dropout and key is None:
        raise ValueError("Dropout in training needs a `key`, got none; pass one such as jax.random.key(0).")
    if statistics is None and not dropout:
        check_as_it_is(module)
        modules = copy.deepcopy(module), module
    else:
        modules = in_mode(module, False, False), in_mode(module, *mode)
    values = {name: _as_array(tensor) for name, tensor in [*module.named_parameters(), *module.named_buffers()]}
    params = {name: values.pop(name) for name, tensor in module.named_parameters() if tensor.requires_grad}
    passes = jnp.zeros((), jnp.int32) if any(mode) else None
    constants, structure = jax.tree.flatten((values, _check.key(key) if dropout else None, passes))
    return restricted(TorchApply(tuple(constants), modules, structure, output, mode), params, trainable)


def _first_names(module: Any) -> dict[str, str]:
    """From every parameter's and buffer's name to the first of that tensor's."""
    names, first = dict[str, str](), dict[int, str]()
    both = (module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False))
    for named in both:
        for name, tensor in named:
            names[name] = first.setdefault(id(tensor), name)
    return names


def _as_array(tensor: Any) -> Array:
    """On JAX's device; NumPy knows no bfloat16, which goes by way of single precision."""
    import torch

    plain = tensor.detach().cpu()
    low = plain.dtype == torch.bfloat16
    return jnp.asarray(plain.float().numpy() if low else plain.numpy(), jnp.bfloat16 if low else None)


def _numpys(dtype: Any) -> Any:
    """The type that PyTorch reads from NumPy for a tensor of this one."""
    import torch

    return jnp.float32 if dtype in (torch.bfloat16, torch.float16) else None
