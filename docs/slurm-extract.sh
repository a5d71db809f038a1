#!/bin/bash
#SBATCH --job-name=featurestore
#SBATCH --array=0-9
#SBATCH --cpus-per-task=16
#SBATCH --time=08:00:00
#
# Extract a store by a SLURM job array. Each task extracts its part of the chunks, in a copy of the store beside it.
#
#   sbatch --export=ALL,STORE=/shared/paintings slurm-extract.sh
#
# A task that was ended goes on where it was, when the array is submitted again. When all tasks are done:
#
#   featurestore merge /shared/paintings /shared/paintings.part-*
#   featurestore run /shared/paintings
#   rm -r /shared/paintings.part-*
set -euo pipefail

: "${STORE:?must be the path of a store that featurestore init has made}"
number=$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN))
n_chunks=$(featurestore sql "$STORE" "SELECT count(*) AS n FROM chunks" --csv | tail -n 1)
first=$((n_chunks * number / SLURM_ARRAY_TASK_COUNT))
end=$((n_chunks * (number + 1) / SLURM_ARRAY_TASK_COUNT))
if [ "$first" -eq "$end" ]; then
    echo "nothing to do: $n_chunks chunks for $SLURM_ARRAY_TASK_COUNT tasks"
    exit 0
fi

part=$STORE.part-$number
if [ ! -d "$part" ]; then
    rm -rf "$part.new"
    cp -r "$STORE" "$part.new"
    mv "$part.new" "$part" # so that a part is a whole copy
fi
featurestore run "$part" extract --chunks "$first-$((end - 1))" --workers "${SLURM_CPUS_PER_TASK:-1}" --quiet
