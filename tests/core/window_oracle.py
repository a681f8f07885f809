"""Training with windows written out: explicit Jacobians, optimisers in NumPy, all iterates of a window kept."""

import abc
import functools

import jax.numpy as jnp
import numpy as np

import relin as il
from core import oracles

STEPS = 11
LOSS = il.CrossEntropy()
DATA = oracles.data(LOSS)


def network(params, x):
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])
    return hidden @ params["out"]["kernel"]


def initial(dtype=np.float64, bias=1.0):
    flat = oracles.mlp_params(dtype)
    return {"hidden": {"bias": bias * flat["b"], "kernel": flat["w"]}, "out": {"kernel": flat["v"]}}


PROBLEM = il.Problem(network, LOSS)
PARTS = {"hidden.bias": slice(0, 6), "hidden.kernel": slice(6, 30), "out.kernel": slice(30, 48)}
"""The parameters' places in the flat vector."""
FULL, MINIBATCHES = [DATA] * STEPS, oracles.minibatches(*DATA, STEPS)
dense = functools.cache(lambda: oracles.Dense(network, initial()))


class Momentum:
    """SGD with momentum: m ← β m + g, update −η m."""

    def __init__(self, rate, beta):
        self.rate, self.beta, self.moment = rate, beta, 0.0

    def __call__(self, gradient):
        self.moment = self.beta * self.moment + gradient
        return -self.rate * self.moment


class Adam:
    """Kingma & Ba, algorithm 1."""

    def __init__(self, rate, b1=0.9, b2=0.999, eps=1e-8):
        self.rate, self.b1, self.b2, self.eps, self.first, self.second, self.step = rate, b1, b2, eps, 0.0, 0.0, 0

    def __call__(self, gradient):
        self.step += 1
        self.first = self.b1 * self.first + (1 - self.b1) * gradient
        self.second = self.b2 * self.second + (1 - self.b2) * gradient**2
        first, second = self.first / (1 - self.b1**self.step), self.second / (1 - self.b2**self.step)
        return -self.rate * first / (np.sqrt(second) + self.eps)


def mean(iterates, decay):
    """Of all iterates of a window, by its definition; zero before the first. A decay of 0 takes the last."""
    weights = decay ** np.arange(len(iterates) - 1, -1, -1, dtype=float)
    return np.average(iterates, axis=0, weights=weights) if len(iterates) else 0.0


def by_hand(
    optimiser,
    batches,
    decay=0.0,
    moves=lambda step, name, now: step % 4 == 0,
    project=lambda anchor, displacement: displacement,
    scale=lambda *now: 1.0,
    damping=0.0,
    course=lambda step: 1.0,
    reset=None,
    start=None,
):
    """Each part of the parameters with its own anchor and window.

    **Arguments:**

    - `optimiser`: from gradients to updates, by a state of its own; `reset()` makes it anew at an anchor.
    - `moves(step, name, (anchor, displacement, x))`: whether a part is re-linearised before a step.
    - `project(anchor, displacement)`: of an iterate, after each step.
    - `scale(anchor, displacement, x, y)`: how far a displacement is followed.
    - `course(step)`: what an update is multiplied by.

    **Returns:** θ_s and the displacement after each step.
    """
    anchor = oracles.flat(start or initial()).copy()
    windows, rows = {name: [] for name in PARTS}, []

    def displacement(of=mean):
        out = np.zeros_like(anchor)
        for name, part in PARTS.items():
            out[part] = of(windows[name], decay)
        return out

    for step, (x, y) in enumerate(batches):
        now = anchor.copy(), displacement(), x
        if moving := [name for name in PARTS if step > 0 and moves(step, name, now)]:
            followed = scale(*now, y)
            for name in moving:
                anchor[PARTS[name]] += followed * now[1][PARTS[name]]
                windows[name] = []
            optimiser = reset() if reset else optimiser
        last = displacement(lambda window, _: window[-1] if window else 0.0)
        jacobian = dense().jacobian(anchor, x)
        gradient = oracles.dense_gradient(LOSS, dense().value(anchor, x) + jacobian @ last, jacobian, y)
        last = project(anchor, last + course(step) * optimiser(gradient + damping * last))
        for name, part in PARTS.items():
            windows[name].append(last[part])
        rows.append((anchor.copy(), displacement()))
    return rows


def at_multiples(period):
    return lambda step, *_: step % period == 0


def trained(solver, schedule=4, full=False, start=None, **options):
    options = {"num_steps": STEPS, "key": oracles.KEY, "batch_size": None if full else oracles.BATCH} | options
    schedule = il.Every(schedule) if isinstance(schedule, int) else schedule
    return il.train(PROBLEM, solver, schedule, start or initial(), DATA, **options)


def agree(solution, row, tolerance=1e-11):
    np.testing.assert_allclose(oracles.flat(solution.anchor), row[0], atol=tolerance, rtol=0)
    np.testing.assert_allclose(oracles.flat(solution.displacement), row[1], atol=tolerance, rtol=0)
    np.testing.assert_allclose(oracles.flat(solution.params), row[0] + row[1], atol=tolerance, rtol=0)


class AbstractRule(abc.ABC):
    """A safeguard on dense parameters; `.taken` keeps each scale with the evaluations that it took."""

    def __init__(self):
        self.taken = []

    @abc.abstractmethod
    def judged(self, anchor, displacement, x, y):
        """The scale, and the evaluations."""

    def __call__(self, *now):
        self.taken.append(self.judged(*now))
        return self.taken[-1][0]

    def check(self, solution, optimiser, batches, period):
        """That the run, recorded at each step, is the one by hand."""
        row = by_hand(optimiser, batches, moves=at_multiples(period), scale=self)[-1]
        agree(solution, row, 1e-9)
        scales, evaluations = map(np.array, zip((1.0, 0), *self.taken, strict=True))
        updates = np.cumsum(scales > 0) - 1
        records, windows = solution.records, np.arange(len(batches)) // period
        np.testing.assert_allclose(records["safeguard_scale"][1:], scales[windows], atol=1e-9, rtol=0)
        np.testing.assert_array_equal(records["safeguard_evaluations"][1:], np.cumsum(evaluations)[windows])
        np.testing.assert_array_equal(records["feature_updates"][1:], updates[windows])


def network_loss(theta, x, y):
    return float(oracles.mean_loss(LOSS, dense().value(theta, x), y))


def linearised_loss(anchor, displacement, x, y):
    return float(oracles.mean_loss(LOSS, dense().linearised(anchor, displacement, x), y))


def line_search(factor):
    """Backtracking by hand; `.scales` keeps what it chose."""

    def scale(anchor, displacement, x, y):
        bound = factor * network_loss(anchor, x, y)
        halved = (0.5**i for i in range(7))
        found = next((s for s in halved if network_loss(anchor + s * displacement, x, y) <= bound), 0.0)
        scale.scales.append(found)
        return found

    scale.scales = []
    return scale


def lanes_agree(make, values, drive, by_lane):
    """Trains solvers `make(lane)` with `Every(lane["period"])` as lanes, and each by hand: `by_lane(**lane)`, with
    `moves` for its period, is what `by_hand` takes else."""

    def run(lane):
        return il.Run(PROBLEM, make(lane), il.Every(lane["period"]), initial(), oracles.KEY)

    arrays = {name: jnp.asarray(each) for name, each in values.items()}
    options = {"num_steps": STEPS, "batch_size": oracles.BATCH, "drive": drive}
    for number, solution in enumerate(il.train_lanes(run, arrays, DATA, **options)):
        lane = {name: each[number] for name, each in values.items()}
        agree(solution, by_hand(batches=MINIBATCHES, moves=at_multiples(lane["period"]), **by_lane(lane))[-1])
