#!/usr/bin/env bash
#SBATCH --job-name=t2i-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
# One training on several nodes, one process a node that takes all its GPUs:
#
#   sbatch experiments/launch/slurm.sh t2i-train --flagfile=... --run_dir=...
#
# Two minutes before the time is up all workers get SIGTERM, save and end; a job that is queued again goes on from there.
set -euo pipefail
export T2I_WORKERS
T2I_WORKERS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/.*/\"&:$((12000 + SLURM_JOB_ID % 20000))\"/" | paste -sd,)
srun --kill-on-bad-exit=1 bash -c '
  export TF_CONFIG="{\"cluster\": {\"worker\": [$T2I_WORKERS]}, \"task\": {\"type\": \"worker\", \"index\": $SLURM_NODEID}}"
  exec "$@"' worker "$@"
