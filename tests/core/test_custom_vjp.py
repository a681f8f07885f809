"""Networks with a custom_vjp rule: J v is the transpose of the Jᵀu that the rule defines."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import pytest
from equinox.internal import while_loop

import relin as il
import relin.equinox
from core import oracles
from relin._core.forward_mode import rules_in_the_way
from relin._core.primitives import backward_only

LOSS = il.CrossEntropy()
X, Y = oracles.data(LOSS)
PARAMS = oracles.mlp_params()


def with_rule(backward, forward=jnp.tanh):
    """A function whose Jᵀc is `backward(its value, c)`."""
    function = jax.custom_vjp(forward)
    function.defvjp(lambda x: (forward(x), forward(x)), lambda value, c: (backward(value, c),))
    return function


def network(function):
    def apply(params, x):
        return function(x @ params["w"] + params["b"][None]) @ params["v"]

    return apply


right = network(with_rule(lambda value, c: c * (1 - value**2)))
reversed_ = network(with_rule(lambda value, c: -c * (1 - value**2)))
"""A rule that is not the derivative of the function: gradients of what lies before it are reversed."""


def reversed_by_jax(params, x):
    """The same J without a rule: f = tanh a at the anchor, whose derivative is that of 2 stop(tanh a) − tanh a."""
    hidden = jnp.tanh(x @ params["w"] + params["b"][None])
    return (2 * jax.lax.stop_gradient(hidden) - hidden) @ params["v"]


PAIRS = [(right, oracles.mlp), (reversed_, reversed_by_jax)]
IDS = ["derivative", "reversed"]


def dense(apply, x=X):
    """J, (N·C, P), by reverse mode alone, one output at a time."""
    rows = jax.jacrev(lambda p: apply(p, x))(PARAMS)
    return np.concatenate([np.asarray(leaf).reshape(len(x) * 3, -1) for leaf in jax.tree.leaves(rows)], axis=1)


def close(a, b):
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("apply", "plain"), PAIRS, ids=IDS)
def test_products_are_those_of_the_dense_jacobian(apply, plain):
    delta = jax.tree.map(jnp.ones_like, PARAMS)
    vector, J = oracles.flat(delta), dense(apply)
    np.testing.assert_allclose(J, dense(plain), rtol=1e-12, atol=1e-13)
    linearised = il.Linearisation(apply, PARAMS)
    close(linearised.jvp(delta, X).reshape(-1), J @ vector)
    close(eqx.filter_jit(linearised.value)(delta, X), apply(PARAMS, X) + (J @ vector).reshape(-1, 3))
    close(linearised.on(X).value(delta), linearised.value(delta, X))
    cotangent = jnp.cos(jnp.arange(36.0)).reshape(12, 3)
    close(oracles.flat(linearised.on(X).pullback(cotangent, delta)), J.T @ cotangent.reshape(-1))
    own_loop = jax.grad(lambda d: jnp.vdot(linearised.value(d, X), cotangent))(delta)
    close(oracles.flat(own_loop), J.T @ cotangent.reshape(-1))


SOLVERS = {
    "full batch": (il.WeightSpace(optax.adam(0.05)), {}),
    "batches": (il.WeightSpace(optax.sgd(0.3, momentum=0.9)), {"batch_size": 5, "drive": "compiled"}),
    "host": (il.WeightSpace(optax.sgd(0.3)), {"batch_size": 5, "drive": "host"}),
    "function space": (il.FunctionSpace(optax.sgd(0.3)), {}),
    "spectral": (il.SpectralDescent(0.3), {}),
    "Gauss-Newton": (il.GaussNewton(damping=0.1), {"batch_size": 5}),
}


@pytest.mark.parametrize(("apply", "plain"), PAIRS, ids=IDS)
@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_trains_as_without_the_rule(name, apply, plain):
    solver, options = SOLVERS[name]
    loss = il.SquaredError() if name == "spectral" else LOSS
    data = oracles.data(loss)

    def trained(function):
        problem = il.Problem(function, loss)
        options_ = {"num_steps": 4, "key": oracles.KEY} | options
        return il.train(problem, solver, il.Every(1 if name == "Gauss-Newton" else 2), PARAMS, data, **options_).params

    close(trained(apply), trained(plain))


def test_ordinary_training_is_a_plain_loop():
    """K = 1, where the rule is used in the way it always is."""
    step = jax.jit(oracles.ordinary_step(reversed_, LOSS, optax.adam(0.1)))
    params, state = PARAMS, optax.adam(0.1).init(PARAMS)
    for _ in range(5):
        params, state = step(params, state, X, Y)
    solver = il.WeightSpace(optax.adam(0.1))
    found = il.train(il.Problem(reversed_, LOSS), solver, il.Every(1), PARAMS, (X, Y), num_steps=5, key=oracles.KEY)
    close(found.params, params)


def test_schedules_safeguards_observers_and_lanes():
    def trained(apply):
        solution = il.train(
            il.Problem(apply, LOSS),
            il.WeightSpace(optax.sgd(0.5)),
            il.WhenError(0.1, check_every=2),
            PARAMS,
            (X, Y),
            num_steps=8,
            key=oracles.KEY,
            record_every=4,
            safeguard=il.LineSearch(),
            observers=[il.LinearisationError(X), il.Sharpness((X, Y)), il.KernelDrift((X, Y))],
        )
        return solution.params, {name: v for name, v in solution.records.items() if v.dtype.kind == "f"}

    close(trained(right), trained(oracles.mlp))

    def lanes(apply):
        def lane(rate):
            solver = il.WeightSpace(optax.sgd(rate))
            return il.Run(il.Problem(apply, LOSS), solver, il.Every(3), PARAMS, oracles.KEY)

        solutions = il.train_lanes(lane, jnp.asarray([0.1, 0.3]), (X, Y), num_steps=5, drive="vmap")
        return [solution.params for solution in solutions]

    close(lanes(right), lanes(oracles.mlp))


def test_the_second_order_is_that_of_the_function_where_the_rule_is_its_derivative():
    delta = jax.tree.map(jnp.ones_like, PARAMS)
    found, expected = (il.Linearisation(f, PARAMS, il.Taylor(2)).value(delta, X) for f in (right, oracles.mlp))
    close(found, expected)


@pytest.mark.parametrize(("apply", "plain"), PAIRS, ids=IDS)
def test_kernels_and_operators(apply, plain):
    J = dense(plain)
    full = (J @ J.T).reshape(12, 3, 12, 3)
    close(il.kernel.ntk(apply, PARAMS, X, outputs="full"), full.transpose(0, 2, 1, 3))
    operator = il.kernel.NTKOperator(apply, PARAMS, X)
    vector = jnp.sin(jnp.arange(36.0)).reshape(12, 3)
    expected = (J @ J.T @ np.asarray(vector).reshape(-1)).reshape(12, 3)
    close(operator.mv(vector), expected)
    close(lx.linearise(operator).mv(vector), expected)
    pieces = il.kernel.features(apply, PARAMS, X, batch_size=5)
    close(pieces.mv(jax.tree.map(jnp.ones_like, PARAMS)).reshape(-1), J.sum(1))

    def coupled(params, x):
        outputs = apply(params, x)
        return outputs - outputs.mean(0, keepdims=True)

    C = dense(coupled)
    found = il.kernel.ntk(coupled, PARAMS, X, outputs="full", coupled=True)
    close(found, (C @ C.T).reshape(12, 3, 12, 3).transpose(0, 2, 1, 3))


def test_check_says_how_and_what_defines_the_jacobian():
    found = il.check(il.Problem(reversed_, LOSS), PARAMS, (X, Y))
    assert found.ok
    assert len(found.rules) == 1
    assert "tanh" in found.rules[0]
    assert "J v is the transpose of Jᵀu, whose custom_vjp rule defines J: " in str(found).splitlines()[0]
    assert found.largest_rate == pytest.approx(
        il.check(il.Problem(reversed_by_jax, LOSS), PARAMS, (X, Y)).largest_rate, rel=1e-6
    )
    plain = il.check(il.Problem(oracles.mlp, LOSS), PARAMS, (X, Y))
    assert plain.rules == ()
    assert "transpose" not in str(plain)


def test_a_rule_that_no_parameter_reaches_stays_out_of_the_way():
    rule = with_rule(lambda value, c: jnp.clip(c, -1, 1))

    def apply(params, x):
        return oracles.mlp(params, rule(x))

    delta = jax.tree.map(jnp.ones_like, PARAMS)
    close(il.Linearisation(apply, PARAMS).jvp(delta, X), il.Linearisation(oracles.mlp, PARAMS).jvp(delta, jnp.tanh(X)))
    assert il.check(il.Problem(apply, LOSS), PARAMS, (X, Y)).rules == ()


def by_loop(x):
    """tanh in a loop of Equinox, whose rule is a loop of unknown length."""
    return while_loop(
        lambda s: s[0] < 1, lambda s: (s[0] + 1, jnp.tanh(s[1])), (0, x), max_steps=4, kind="checkpointed"
    )[1]


loop = network(by_loop)


def test_a_loop_of_equinox_is_linearised_by_forward_mode():
    """JAX transposes no loop of unknown length; this one's rule is the loop's own derivative."""
    delta, J = jax.tree.map(jnp.ones_like, PARAMS), dense(oracles.mlp)
    vector = oracles.flat(delta)
    linearised = il.Linearisation(loop, PARAMS)
    close(eqx.filter_jit(linearised.jvp)(delta, X).reshape(-1), J @ vector)
    close(eqx.filter_jit(lambda: linearised.on(X).value(delta))(), loop(PARAMS, X) + (J @ vector).reshape(-1, 3))
    cotangent = jnp.cos(jnp.arange(36.0)).reshape(12, 3)
    close(oracles.flat(linearised.on(X).pullback(cotangent, delta)), J.T @ cotangent.reshape(-1))
    found = il.check(il.Problem(loop, LOSS), PARAMS, (X, Y))
    assert found.ok
    assert (
        "J v is forward mode of the loop, Jᵀu its custom_vjp rule's: checkpointed_while_loop at "
        in str(found).splitlines()[0]
    )
    for name, (solver, options) in SOLVERS.items():
        loss = il.SquaredError() if name == "spectral" else LOSS
        period = il.Every(1 if name == "Gauss-Newton" else 2)
        found, plain = (
            il.train(
                il.Problem(f, loss),
                solver,
                period,
                PARAMS,
                oracles.data(loss),
                **{"num_steps": 4, "key": oracles.KEY, **options},
            ).params
            for f in (loop, oracles.mlp)
        )
        close(found, plain)
    full = (J @ J.T).reshape(12, 3, 12, 3).transpose(0, 2, 1, 3)
    close(il.kernel.ntk(loop, PARAMS, X, outputs="full"), full)
    vector = jnp.sin(jnp.arange(36.0)).reshape(12, 3)
    operator = il.kernel.NTKOperator(loop, PARAMS, X)
    for product in (operator.mv(vector), lx.linearise(operator).mv(vector)):
        close(product.reshape(-1), J @ J.T @ vector.reshape(-1))


class Module(eqx.Module):
    params: dict
    apply: object = eqx.field(static=True)

    def __call__(self, x):
        return self.apply(self.params, x)


def moved(apply):
    model = relin.equinox.Linearised(Module(PARAMS, apply))
    params = eqx.filter(model, eqx.is_inexact_array)
    return eqx.apply_updates(model, jax.tree.map(lambda leaf: 0.1 * jnp.cos(leaf), params))


def test_a_loop_of_equinox_in_a_loop_of_ones_own():
    """The loss and its derivative by the parameters, in jit, in vmap, and eagerly; none by the inputs."""

    def gradient(apply):
        model = moved(apply)
        each = eqx.filter_vmap(lambda model, x: model(x[None])[0], in_axes=(None, 0))
        of = eqx.filter_value_and_grad(lambda model, run: LOSS.mean(run(model), Y))
        batch = lambda model: model(X)  # noqa: E731
        one_by_one = lambda model: each(model, X)  # noqa: E731
        found = [of(model, batch), eqx.filter_jit(of)(model, batch), eqx.filter_jit(of)(model, one_by_one)]
        return [(value, slope.network.params) for value, slope in found]

    close(gradient(loop), gradient(oracles.mlp))
    with pytest.raises(ValueError, match="by its parameters alone, got one by its inputs; differentiate by"):
        jax.grad(lambda x: moved(loop)(x).sum())(X)


def test_a_rule_of_ones_own_in_a_loop_of_equinox_is_refused():
    """Forward mode without the loop's rule would be without this one too."""
    rule = with_rule(lambda value, c: 3 * c)

    def apply(params, x):
        hidden = x @ params["w"] + params["b"][None]
        body = lambda s: (s[0] + 1, rule(s[1]))  # noqa: E731
        return while_loop(lambda s: s[0] < 1, body, (0, hidden), max_steps=4, kind="checkpointed")[1] @ params["v"]

    names = rules_in_the_way(apply, PARAMS, X)
    assert any("checkpointed_while_loop at " in name for name in names)
    assert any(name.startswith("tanh at ") for name in names)
    with pytest.raises(ValueError, match="Reverse-mode"):
        il.Linearisation(apply, PARAMS).jvp(PARAMS, X)
    with pytest.raises(ValueError, match="Reverse-mode"):
        il.kernel.ntk(apply, PARAMS, X)


def test_a_loop_in_a_function_with_a_jvp_rule():
    """Its derivative is that rule's; one that itself has a loop is refused."""

    @jax.custom_jvp
    def ruled(x):
        return by_loop(x)

    ruled.defjvp(lambda x, t: (by_loop(x[0]), (1 - jnp.tanh(x[0]) ** 2) * t[0]))
    close(il.Linearisation(network(lambda x: ruled(by_loop(x))), PARAMS).jvp(PARAMS, X), twice().jvp(PARAMS, X))
    with pytest.raises(ValueError, match="take relin"):
        il.Linearisation(loop, PARAMS, il.Taylor(2)).value(PARAMS, X)


def twice():
    return il.Linearisation(network(lambda x: jnp.tanh(jnp.tanh(x))), PARAMS)


def test_a_rule_made_by_equinox_bears_the_name_of_its_caller():
    """In the derivative of another function of Equinox too, whose frames come after."""

    @eqx.filter_custom_vjp
    def tripled(x):
        return jnp.tanh(x)

    tripled.def_fwd(lambda _, x: (jnp.tanh(x), jnp.tanh(x)))
    tripled.def_bwd(lambda value, c, _, x: 3 * c * (1 - value**2))
    apply = network(tripled)
    for function in (lambda x: x, lambda x: eqx.filter_grad(lambda x: jnp.sum(x**2) / 2)(x)):
        found = rules_in_the_way(lambda p, x, f=function: apply(p, f(x)), PARAMS, X)
        assert [name.split(" at ")[0] for name in found] == ["network.<locals>.apply"]
    close(il.Linearisation(apply, PARAMS).jvp(PARAMS, X).reshape(-1), dense(apply) @ oracles.flat(PARAMS))


def test_a_rule_of_ones_own_in_a_derivative_by_equinox_keeps_its_name():
    found = []

    def loss(params):
        found.append(backward_only(right, params, X))
        return 0.0 * jnp.sum(params["w"])

    eqx.filter_grad(loss)(PARAMS)
    assert [name.split(" at ")[0] for name in found[0]] == ["tanh"]


def looped(value, c):
    return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * value), (0, c))[1]


RULES = {
    "clipped": (lambda value, c: jnp.clip(c, -1, 1), "cannot transpose .*must be linear in the cotangent"),
    "sign": (lambda value, c: jnp.sign(c), "cannot transpose .*must be linear in the cotangent"),
    "normalised": (lambda value, c: c / jnp.linalg.norm(c), "cannot transpose .*must be linear in the cotangent"),
    "masked by itself": (lambda value, c: jnp.where(c > 0, c, 0), "cannot transpose .*must be linear in the cotangent"),
    "a loop": (looped, "cannot transpose .*Reverse-mode.*loops in it a lax.scan"),
    "noise": (lambda value, c: c + 1e-3, "one is not: it adds to the cotangent or rounds it; write"),
    "integers": (lambda value, c: c.astype(int).astype(c.dtype), "one is not: it adds to the cotangent or rounds"),
}


@pytest.mark.parametrize("name", RULES)
def test_what_is_not_linear_is_refused(name):
    rule, message = RULES[name]
    problem = il.Problem(network(with_rule(rule)), LOSS)
    with pytest.raises(ValueError, match=message) as error:
        il.train(problem, il.WeightSpace(optax.sgd(0.1)), il.Every(2), PARAMS, (X, Y), num_steps=2, key=oracles.KEY)
    assert "\n" not in str(error.value)
    found = il.check(problem, PARAMS, (X, Y))
    assert found.obstacle == str(error.value)
    assert not found.ok


def test_half_precision_inside_a_rule_passes():
    apply = network(
        with_rule(lambda value, c: (c.astype(jnp.bfloat16) * (1 - value**2).astype(jnp.bfloat16)).astype(c.dtype))
    )
    assert il.check(il.Problem(apply, LOSS), PARAMS, (X, Y)).ok
