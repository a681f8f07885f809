#!/bin/sh
# One study in several processes of this machine, by GNU parallel, 4 by default:
#
#     SHARDS=2 sh examples/gnu-parallel.sh frequency --out studies/digits
#
# On several machines that see this folder under the same path, where PARALLEL holds the option --sshlogin of parallel:
#
#     PARALLEL='--sshlogin one,two' SHARDS=8 sh examples/gnu-parallel.sh frequency --out studies/digits
#
# The shard that ends last writes the report; killed at any moment, the same command goes on. Where shards or machines
# have died, the same relin command without a shard waits for what others still compute, and finishes the rest.
set -eu
SHARDS=${SHARDS:-4}
parallel --quote --jobs "$SHARDS" --workdir . --line-buffer --tag \
    relin study "${@:-frequency}" --executor threads:1 --shard "{}/$SHARDS" \
    ::: $(seq "$SHARDS")
