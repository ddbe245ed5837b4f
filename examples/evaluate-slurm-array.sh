#!/usr/bin/env bash
# Evaluate on four GPUs as a Slurm array, then join: bash examples/evaluate-slurm-array.sh OUT --student DIR --manifest FILE ...
# All arguments after OUT are passed to `medalign student evaluate`; set VERB=ground for grounding. OUT lies on a file system that all nodes share.
# A job that is requeued continues its own task.
set -euo pipefail
tasks=${TASKS:-4} verb=${VERB:-evaluate} out=$1
shift
command="medalign student $verb --out $(printf %q "$out") $(printf '%q ' "$@")"
array=$(sbatch --parsable --job-name=medalign --array="0-$((tasks - 1))" --gpus=1 --cpus-per-task=8 --time=12:00:00 --requeue \
    --wrap "$command --task \$SLURM_ARRAY_TASK_ID/$tasks")
sbatch --job-name=medalign-finish --dependency="afterok:$array" --cpus-per-task=4 --time=1:00:00 --wrap "$command --device cpu --finish"
