"""Process R of two, each with two devices, that train runs together, and their ends: `two_processes.py PORT R`.
`four_devices.py` starts both."""

import sys

import jax

PORT, RANK = sys.argv[1], int(sys.argv[2])
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{PORT}", num_processes=2, process_id=RANK)

import numpy as np  # noqa: E402
import optax  # noqa: E402
import pytest  # noqa: E402
from jax.experimental import multihost_utils  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec as P  # noqa: E402

import relin as il  # noqa: E402
from core.four_devices import DATA, KEY, PARAMS, PROBLEM, flat  # noqa: E402

assert jax.device_count() == 4
MESH = jax.make_mesh((4,), ("fsdp",))
SOLVER = il.WeightSpace(optax.adam(0.05))


def printed(solution):
    whole = multihost_utils.process_allgather((solution.params, solution.displacement), tiled=True)
    print("end", *flat(whole), *solution.records["training_loss"][1:], solution.feature_updates)


def trained(schedule, data, solver=SOLVER, **options):
    return il.train(PROBLEM, solver, schedule, PARAMS, data, num_steps=6, key=KEY, mesh=MESH, **options)


def refused(expected, **options):
    with pytest.raises(ValueError, match=expected):
        trained(4, DATA, **options)


printed(trained(1, DATA, batch_size=8))
printed(trained(4, DATA, batch_size=8, observers=[il.Movement()], record_every=3))
split = NamedSharding(MESH, P("fsdp"))  # each process brings the examples of its own devices
here = slice(8 * RANK, 8 * RANK + 8)
own = tuple(jax.make_array_from_process_local_data(split, part[here]) for part in DATA)
printed(trained(4, own))
printed(trained(4, [(DATA[0][:8], DATA[1][:8]), (DATA[0][8:], DATA[1][8:])]))
refused("FunctionSpace reads what all devices hold", solver=il.FunctionSpace(optax.sgd(0.1)))
refused("over several processes, of which each holds a part, cannot be kept", checkpoint=il.Checkpoint("nowhere"))
diverged = trained(4, DATA, il.WeightSpace(optax.sgd(np.inf)), throw=False)
with pytest.raises(ValueError, match="of which other processes hold a part"):
    diverged.save("nowhere")
print("diverged", diverged.diverged_at)
assert diverged.result is il.Result.diverged
