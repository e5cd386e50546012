#!/usr/bin/env bash
#SBATCH --job-name=t2i-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
# One training on several nodes, one process a node that takes all its GPUs:
#
#   sbatch experiments/launch/slurm.sh t2i-train --flagfile=... --run_dir=...
#
# Two minutes before the time is up all workers get SIGTERM, save and end, and the job is queued again and goes on.
set -euo pipefail
export T2I_WORKERS
T2I_WORKERS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/.*/\"&:$((12000 + SLURM_JOB_ID % 20000))\"/" | paste -sd,)
time_is_up=
trap 'time_is_up=yes; scancel --signal=TERM "$SLURM_JOB_ID"' TERM # the signal reaches the workers, not this script
srun --kill-on-bad-exit=1 bash -c '
  export TF_CONFIG="{\"cluster\": {\"worker\": [$T2I_WORKERS]}, \"task\": {\"type\": \"worker\", \"index\": $SLURM_NODEID}}"
  exec "$@"' worker "$@" &
while status=0; wait $! || status=$?; kill -0 $! 2> /dev/null; do :; done # a signal ends wait, not srun
if [ "$time_is_up" ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
