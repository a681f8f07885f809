#!/bin/sh
# One study in several processes of this machine, by GNU parallel, 4 by default:
#
#     SHARDS=2 sh examples/gnu-parallel.sh frequency --out studies/digits
#
# With the option --sshlogin of parallel, on several machines that see the folder. The shard that ends last writes the
# report; killed at any moment, the same command goes on.
set -eu
SHARDS=${SHARDS:-4}
parallel --quote --jobs "$SHARDS" --line-buffer --tag \
    relin study "${@:-frequency}" --executor threads:1 --shard "{}/$SHARDS" \
    ::: $(seq "$SHARDS")
