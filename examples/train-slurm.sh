#!/usr/bin/env bash
# Train on two nodes with four GPUs each: sbatch examples/train-slurm.sh CONFIG DIR [--set ...]
# A job that is requeued after preemption or a time limit resumes from its last complete checkpoint.
#SBATCH --job-name=medalign
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --requeue
set -euo pipefail
config=$1 out=$2
shift 2
export OMP_NUM_THREADS=4
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# checkpoint.json is what makes a checkpoint whole.
resume=$(compgen -G "$out/checkpoint-*/checkpoint.json" > /dev/null && echo --resume || true)
srun torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$head:29500" \
    -m medalign student train "$config" --out "$out" $resume "$@"
