"""Parts of a network on schedules of their own."""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from relin._core.context import Context
from relin._core.names import check_patterns, matches, parameter_names, some
from relin._core.types import Flag, Flags, Params, State, Step
from relin._schedule._base import AbstractSchedule


class PerParameter(AbstractSchedule):
    """Each part of the parameters is re-linearised by a schedule of its own: some layers lazy, others rich.

    A part g has its own anchor step s_g. Before step t, if g's schedule says so, θ_{s_g} ← θ_{s_g} + δ_g and δ_g ← 0,
    and the other parts stay as they are. The network is linearised at the point θ_s that the parts' anchors make
    together,

        f̄_t(x) = f(x; θ_s) + J_s(x) δ_t,

    which with parts re-linearised at different steps is no point of the trajectory: the features of a lazy part are its
    initial parameters' *given* the present anchors of the others. With one schedule for all parts it is that schedule.

    `feature_updates` counts the steps at which any part was re-linearised; records also hold
    `feature_updates/PATTERN`, the part's own.

    **Arguments:**

    - `schedules`: from patterns of parameters' names as the shell has them, such as `"encoder.*"`, to schedules. A name
      is the path in `params` with dots. Of several patterns that match, the first counts; each parameter needs one, so
      that `"*"` often comes last.

    **Raises:** `TypeError` for anything but schedules by pattern; and where a run begins `ValueError` for a pattern
    that no parameter belongs to, or a parameter without one.
    """

    schedules: tuple[AbstractSchedule, ...]
    patterns: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, schedules: Mapping[str, AbstractSchedule]):
        given = schedules.items() if isinstance(schedules, Mapping) else ()
        if not given or not all(isinstance(p, str) and isinstance(s, AbstractSchedule) for p, s in given):
            raise TypeError(
                f"`schedules` must map patterns of names to schedules, got {schedules!r}; pass for example "
                '{"head.*": relin.Every(1), "*": relin.Never()}.'
            )
        if nested := [pattern for pattern, schedule in given if schedule.partial]:
            raise TypeError(
                f"`schedules` must hold schedules of whole networks, got a PerParameter for {nested[0]!r}; name all "
                "parts in one."
            )
        self.patterns, self.schedules = tuple(schedules), tuple(schedules.values())

    @property
    def adaptive(self) -> bool:
        return True

    @property
    def partial(self) -> bool:
        return True

    @property
    def every_step(self) -> bool:
        return all(schedule.every_step for schedule in self.schedules)

    def due(self, step: Step) -> Flag:
        return jnp.any(self._flags([schedule.due(step) for schedule in self.schedules]))

    def init(self, context: Context) -> State:
        """The parts' own states, and how often each was re-linearised."""
        self._members(context.anchor)
        states = tuple(schedule.init(context) for schedule in self.schedules)
        return states, jnp.zeros(len(self.schedules), jnp.int32)

    def queried(self, step: Step, state: State) -> Flag:
        return jnp.any(self._queried_parts(step, state))

    def query(self, context: Context, state: State) -> tuple[Flags, State]:
        """Which parts are re-linearised, and the new state."""
        queried = self._queried_parts(context.step, state)
        wanted, states = [], []
        for schedule, now, before in zip(self.schedules, queried, state[0], strict=True):
            flag, after = schedule.query(context, before) if schedule.adaptive else (True, before)
            wanted.append(now & flag)
            states.append(jax.tree.map(lambda new, old, now=now: jnp.where(now, new, old), after, before))
        flags = self._flags(wanted)
        return flags, (tuple(states), state[1] + flags)

    def relinearised(self, wanted: Flags, params: Params) -> PyTree[Flag]:
        members, flags = self._members(params), jnp.asarray(wanted)
        return jax.tree.unflatten(jax.tree.structure(params), [flags[part] for part in members])

    def measures(self, state: State, feature_updates: Int[Array, ""]) -> dict[str, Int[Array, ""]]:
        """How often each part was re-linearised, so far."""
        counts = [feature_updates] * len(self.patterns) if self.every_step else list(state[1])
        return {f"feature_updates/{pattern}": count for pattern, count in zip(self.patterns, counts, strict=True)}

    def _queried_parts(self, step: Step, state: State) -> Bool[Array, " parts"]:
        pairs = zip(self.schedules, state[0], strict=True)
        return self._flags([jnp.asarray(s.due(step)) & s.queried(step, own) for s, own in pairs])

    def _flags(self, flags: list) -> Bool[Array, " parts"]:
        return jnp.stack([jnp.asarray(flag, bool) for flag in flags])

    def _members(self, params: Params) -> list[int]:
        """The part of each parameter, in order."""
        names = parameter_names(params)
        check_patterns(names, self.patterns)
        found = [[part for part, pattern in enumerate(self.patterns) if matches(name, pattern)] for name in names]
        if without := [name for name, parts in zip(names, found, strict=True) if not parts]:
            raise ValueError(f'Each parameter must belong to a part, got none for {some(without)}; add a pattern "*".')
        first = [parts[0] for parts in found]
        if unused := [pattern for part, pattern in enumerate(self.patterns) if part not in first]:
            raise ValueError(
                f"Each part must have a parameter, got none for {unused[0]!r}, whose parameters all belong to patterns "
                "before it; put it first."
            )
        return first
