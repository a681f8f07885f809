"""PyTorch's own rules for a forward pass that torchax runs: where gradients stop, and what a program cannot keep.

torchax gives the values. What is read as a constant (`detach`, `.data`, `torch.no_grad`) and what changes in place
without a gradient it differentiates; backward functions that are not a forward's derivative it leaves out.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

import jax
import torch
from jaxtyping import Array
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointFunction
from torchax.tensor import OperatorNotFound, Tensor
from torchax.view import View, ViewInfo

from relin._core.names import some
from relin._core.randomness import not_drawn
from relin._core.types import Key
from relin.adapters._torch_module import batch_norms
from relin.adapters._torch_recurrent import FUNCTIONS, as_scan

_OWN_NAMESPACES = ("aten", "prim", "prims", "torchvision", "xla", "_c10d_functional")
_PROPERTIES: Any = vars(torch._C.TensorBase)
_DETACHED = (torch.detach, torch.Tensor.detach, _PROPERTIES["data"].__get__)
_REQUIRES_GRAD = _PROPERTIES["requires_grad"].__get__
_HOOKS = (
    torch.Tensor.register_hook,
    torch.Tensor.register_post_accumulate_grad_hook,
    torch.Tensor.retain_grad,
)
_MOVING = (torch.nn.functional.batch_norm, torch.nn.functional.instance_norm, torch.batch_norm, torch.instance_norm)
_MISREAD = (torch.normal, torch.Tensor.random_, torch.Tensor.cauchy_)
"""Functions that draw from another distribution in torchax 0.0.13."""


@jax.custom_jvp
def _held(before: Array, after: Array) -> Array:
    """The value after a change in place that no gradient sees: the derivative stays that of the value before."""
    return after


@_held.defjvp
def _held_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    return primals[1], tangents[0]


class Detached(ViewInfo):
    """A view of a tensor as a constant. What is written to it is written to the tensor."""

    def transform_tensor(self, jax_array: Array) -> Array:
        return jax.lax.stop_gradient(jax_array)

    def update_tensor(self, new_value: Array, jax_array: Array) -> Array:
        return _held(jax_array, jax.lax.stop_gradient(new_value))

    def calculate_output_shape(self, source: Array) -> list[int]:
        return list(source.shape)


def _detached(tensor: Any) -> Any:
    return View(tensor, Detached(), tensor._env)


def _is_traced(value: Any) -> bool:
    return isinstance(value, Tensor | View)


class Rules(TorchFunctionMode):
    """What PyTorch does with a function's gradient, around torchax's function."""

    def __init__(self, env: Any, pass_: "Pass"):
        super().__init__()
        self.env, self.pass_ = env, pass_

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        first: Any = args[0] if args else None
        if _is_traced(first):
            if func in _DETACHED:
                return _detached(first)
            if func is torch.Tensor.detach_:
                first._elem = jax.lax.stop_gradient(first._elem)
                return first
            if func == _REQUIRES_GRAD:
                return self.pass_.requires_grad(first)
            if func in _HOOKS:
                self.pass_.refuse_backward("a hook of a tensor's gradient")
            if func in _MISREAD:
                self.pass_.refuse_function(func)
            if func in _MOVING:
                self.pass_.check_statistics(func, args, kwargs)
            if func in FUNCTIONS:
                func = as_scan(func, args, kwargs) or func
        if any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values())):
            self.pass_.drew_elsewhere("a torch.Generator")
        result = func(*args, **kwargs) if torch.is_grad_enabled() else _without_gradient(func, args, kwargs)
        if self.env.param.prng is not self.pass_.key:
            self.pass_.drew()
        return result


def _without_gradient(func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """A function inside `torch.no_grad()`: what it returns and what it writes is constant."""
    given = {id(leaf): leaf for leaf in _pytree.tree_leaves((args, kwargs)) if _is_traced(leaf)}
    sources = {id(source): source for source in map(_source, given.values())}
    before = {name: source._elem for name, source in sources.items()}
    result = func(*args, **kwargs)
    for name, source in sources.items():
        if source._elem is not before[name] and source._elem.shape == before[name].shape:
            source._elem = _held(before[name], source._elem)

    def constant(value: Any) -> Any:
        if id(value) in given:
            return value
        if isinstance(value, View):
            return _detached(value)
        value._elem = jax.lax.stop_gradient(value._elem)
        return value

    return _pytree.tree_map_only((Tensor, View), constant, result)


def _source(tensor: Any) -> Any:
    while isinstance(tensor, View):
        tensor = tensor.parent
    return tensor


class Operators(TorchDispatchMode):
    """Names what torchax cannot run: operators, and those on a tensor that the forward pass made on the CPU."""

    def __init__(self, pass_: "Pass"):
        super().__init__()
        self.pass_ = pass_

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        namespace = getattr(func, "namespace", "aten")
        if namespace not in _OWN_NAMESPACES and any(map(_is_traced, _pytree.tree_leaves((args, kwargs)))):
            self.pass_.refuse_backward(f"the operator {func.name().split('.')[0]} of its own")
        try:
            return func(*args, **kwargs)
        except OperatorNotFound as error:
            self.pass_.refuse_operator(func, error)
        except AssertionError as error:
            leaves = _pytree.tree_leaves((args, kwargs))
            if not any(isinstance(leaf, torch.Tensor) and not _is_traced(leaf) for leaf in leaves):
                raise
            self.pass_.refuse_mixed(error)


class Pass:
    """One forward pass of a module: what it may do, and the sentences where it does something else."""

    def __init__(self, module: Any, key: Key | None):
        self.module, self.random = module, key is not None
        self.first_key = jax.random.key(0) if key is None else key
        self.key = self.first_key
        self.constants = set[int]()
        self.env: Any = None
        self.state = torch.get_rng_state()

    def requires_grad(self, tensor: Any) -> bool:
        source = _source(tensor)
        return torch.is_grad_enabled() and tensor.dtype.is_floating_point and id(source) not in self.constants

    def drew(self) -> None:
        """A random number was drawn from the pass's key, which dropout alone has."""
        self.key = self.env.param.prng
        if self.random:
            return
        remedy = "call module.eval() before from_torch, or pass dropout=True and a `key`"
        self._refuse_randomness("", remedy if self.module.training else "pass them in with the inputs")

    def drew_elsewhere(self, generator: str) -> NoReturn:
        """A random number was drawn from what no key decides."""
        remedy = "draw on the input's device, such as with torch.rand_like(x), or call module.eval() before from_torch"
        self._refuse_randomness(f" from {generator}", remedy)

    def _refuse_randomness(self, source: str, remedy: str) -> NoReturn:
        raise ValueError(
            f"The module must not draw random numbers{source} when it is traced, got {self.place()}, which does: one "
            f"mask would serve every step; {remedy}."
        )

    def refuse_backward(self, what: str) -> NoReturn:
        raise ValueError(
            f"The module's derivative must be that of its forward pass, got {self.place()}, which uses {what}, whose "
            "backward may be another one, and relin needs J v as well as Jᵀ u; write it with PyTorch's own functions, "
            "where .detach() stops gradients: x + (f(x) - x).detach() passes them straight through f."
        )

    def check_statistics(self, func: Any, args: Any, kwargs: Any) -> None:
        """Raises for running statistics that a function would move, which torchax leaves out."""
        named = dict(zip(("input", "running_mean", "running_var"), args, strict=False)) | kwargs
        names = ("weight", "bias", "use_input_stats" if "instance" in func.__name__ else "training")
        named |= dict(zip(names, args[3:], strict=False))
        moving = named.get(names[2], "instance" in func.__name__)
        mean = named.get("running_mean")
        if moving and mean is not None and not any(norm.running_mean is mean for norm in batch_norms(self.module)):
            raise ValueError(
                f"Running statistics must be those of a torch.nn.BatchNorm to be carried along, got {self.place()}, "
                f"which moves its own with {func.__name__}; use that layer, or call module.eval() before from_torch."
            )

    def refuse_function(self, func: Any) -> NoReturn:
        raise ValueError(
            f"The module must use functions that torchax knows, got {self.place()} with {func.__name__}, which draws "
            "from another distribution there; use torch.rand_like or torch.randn_like."
        )

    def refuse_operator(self, func: Any, error: Exception) -> NoReturn:
        raise ValueError(
            f"The module must use operators that torchax knows, got {self.place()} with {func.name()}; write it with "
            "others."
        ) from error

    def refuse_mixed(self, error: Exception) -> NoReturn:
        """A tensor of the CPU's met one of the pass's."""
        self._check_drawn()
        raise ValueError(
            f"The module must make its tensors on the input's device, got {self.place()}, which makes one on the CPU; "
            "write, for example, torch.zeros(4, device=x.device), or register it as a buffer."
        ) from error

    def _check_drawn(self) -> None:
        """Raises if a random number was drawn on the CPU."""
        if not torch.equal(self.state, torch.get_rng_state()):
            torch.set_rng_state(self.state)
            self.drew_elsewhere("PyTorch's generator of the CPU")

    def refuse_reading(self, error: Exception) -> NoReturn:
        """A tensor's number was read in Python, which a compiled program has not."""
        traceback = error.__traceback__
        while traceback is not None and traceback.tb_next is not None:
            traceback = traceback.tb_next
        place = self.place(None if traceback is None else traceback.tb_frame)
        raise ValueError(
            f"The module must be one program for all inputs, got {place}, which reads a number from a tensor, with "
            ".item(), float(), int() or an `if`; compute with the tensor itself, and choose with torch.where."
        ) from error

    def check_moved(self, names: list[str], carried: set[str]) -> None:
        """Raises for parameters that the forward pass changed, and for buffers that nothing carries along."""
        buffers = dict(self.module.named_buffers())
        if own := [name for name in names if name not in buffers]:
            raise ValueError(
                f"The module must leave its parameters to training, got {type(self.module).__name__}, whose forward "
                f"pass changes {some(own)}; change them in a step of an Optax optimiser."
            )
        if lost := [name for name in names if name not in carried]:
            raise ValueError(
                f"The module must leave its buffers as they are, got {type(self.module).__name__}, whose forward "
                f'pass moves {some(lost)}; pass statistics="batch" so that training carries them along, or call '
                "module.eval() before from_torch."
            )

    def place(self, frame: Any = None) -> str:
        """The innermost part of the module that is running, by its path and class."""
        names = {id(part): name for name, part in self.module.named_modules()}
        frame = frame or sys._getframe()
        while frame is not None:
            part = frame.f_locals.get("self")
            if id(part) in names:
                kind = type(part).__name__
                return f"{names[id(part)]} ({kind})" if names[id(part)] else kind
            frame = frame.f_back
        return type(self.module).__name__

    @contextmanager
    def running(self, env: Any, constants: set[int]) -> Iterator[None]:
        """torchax's environment with PyTorch's rules. `constants` are the tensors that require no gradient, by `id`."""
        self.env, self.constants, self.key = env, constants, self.first_key
        self.state = torch.get_rng_state()
        with ExitStack() as stack:
            stack.enter_context(not_drawn(self.module, self.drew_elsewhere))
            stack.enter_context(_replaced(self))
            stack.enter_context(env)
            stack.enter_context(env.override_property(prng=self.key))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(Operators(self))
            stack.enter_context(Rules(env, self))
            stack.enter_context(jax.numpy_rank_promotion("allow"))
            yield
        self._check_drawn()


_LOCK = threading.RLock()


@contextmanager
def _replaced(forward: Pass) -> Iterator[None]:
    """Stands in, for this thread's forward pass, for what PyTorch's modes do not see: the functions with a backward of
    their own, and the methods that torchax writes in Python."""
    thread = threading.get_ident()
    apply = torch.autograd.Function.apply.__func__
    own_item = {kind: kind.__setitem__ for kind in (Tensor, View)}

    def applied(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() == thread:
            if cls is CheckpointFunction:  # its backward is that of the function that it is given
                return args[0](*args[2:])
            if torch.is_grad_enabled() and cls.__module__ != CheckpointFunction.__module__:
                forward.refuse_backward(f"the torch.autograd.Function {cls.__name__}")
        return apply(cls, *args, **kwargs)

    def set_item(self: Any, key: Any, value: Any) -> None:
        source = _source(self)
        before = source._elem
        own_item[type(self)](self, key, value)
        if not torch.is_grad_enabled():
            source._elem = _held(before, source._elem)

    def set_data(self: Any, value: Any) -> None:
        after = jax.lax.stop_gradient(value.jax())
        self._elem = _held(self._elem, after) if after.shape == self._elem.shape else after

    stand_ins = [
        (torch.autograd.Function, "apply", classmethod(applied)),
        (Tensor, "detach", _detached),
        (Tensor, "data", property(_detached, set_data)),
        (Tensor, "__setitem__", set_item),
        (View, "__setitem__", set_item),
    ]
    with _LOCK:
        before = [(kind, name, vars(kind)[name]) for kind, name, _ in stand_ins]
        try:
            for kind, name, value in stand_ins:
                setattr(kind, name, value)
            yield
        finally:
            for kind, name, value in before:
                setattr(kind, name, value)
