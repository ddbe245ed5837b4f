#!/usr/bin/env bash
# Train on all GPUs of one node: bash examples/train-one-node.sh CONFIG DIR [--resume] [--set ...]
set -eu
gpus=$(nvidia-smi --list-gpus | wc -l)
export OMP_NUM_THREADS=4
exec torchrun --standalone --nproc-per-node "$gpus" -m medalign student train "$1" --out "$2" "${@:3}"
