"""A full-batch step that reuses what the anchor's linearisation keeps, over an ordinary full-batch step."""

import jax

import relin as il
from benchmarks._measure import compiled, flops, heading, row, seconds, table
from benchmarks._subjects import OPTIMISER, linearised_step, plain_step, relin_steps, subject, zeros

CASES = {"mlp": (256, 1024), "cnn": (256,)}
STEPS = 30


def residuals() -> None:
    heading(
        "A full-batch weight-space step over an ordinary one: anew at every step, and reusing the anchor's residuals"
    )
    table(("network", "N", "ordinary ms", "anew", "FLOP ratio", "reused", "FLOP ratio", "over FLOP ratio"))
    for name, sizes in CASES.items():
        for number in sizes:
            measure(name, number)


def measure(name: str, number: int) -> None:
    problem, params, data = subject(name, number)
    data = jax.tree.map(lambda a: a[:number], data)
    state, host = OPTIMISER.init(params), name == "cnn"
    at_anchor = jax.jit(lambda p: problem.linearise(p).on(data[0]))(params)

    def reusing(at_anchor, displacement, state):
        cotangent = jax.grad(problem.loss.mean)(at_anchor.value(displacement), data[1])
        return OPTIMISER.update(at_anchor.pullback(cotangent, displacement), state, displacement)

    plain = compiled(lambda p, s: plain_step(problem, p, s, *data), params, state)
    anew = compiled(lambda p, d, s: linearised_step(problem, p, d, s, *data), params, zeros(params), state)
    reused = compiled(reusing, at_anchor, zeros(params), state)
    ratios = [flops(program) / flops(plain) for program in (anew, reused)]
    step = jax.jit(lambda p, s: plain_step(problem, p, s, *data))

    def plain_loop():
        carry = params, state
        for _ in range(STEPS):
            carry = step(*carry)
        return carry

    loops = [plain_loop]
    for batches in (il.Shuffled(number), il.FullBatch()):
        loops.append(relin_steps(problem, params, data, number, il.Never(), STEPS, host, batches=batches))
    ordinary, by_anew, by_reused = seconds(loops, repeats=3)
    row(
        name,
        number,
        ordinary / STEPS * 1e3,
        by_anew / ordinary,
        ratios[0],
        by_reused / ordinary,
        ratios[1],
        by_reused / ordinary / ratios[1],
    )
