#!/usr/bin/env bash
#SBATCH --job-name=${JOB_NAME}
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
# Two minutes before its time is up the job saves a checkpoint; requeued, it goes on there.
set -euo pipefail
exec srun apptainer run --nv --containall --workdir "$$(mktemp --directory)" --bind "${BUCKET}:/data" \
  --env "MODEL=${MODEL}" "docker://${IMAGE}" "${NUM_STEPS}"
