#!/usr/bin/env bash
#SBATCH --job-name=${JOB_NAME}-convert
#SBATCH --array=1-${PARTS}
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=24:00:00
#SBATCH --requeue
# Each task of the array does one part, and the last one writes the manifest. Train on it with
# RECORDS_DIR=/data/records.
set -euo pipefail
work=$$(mktemp --directory)
trap 'rm -rf "$$work"' EXIT
srun apptainer run --containall --workdir "$$work" --bind "${BUCKET}:/data" \
  --env "MODEL=${MODEL},RECORDS_DIR=/data/records" \
  --env "SLURM_ARRAY_TASK_ID=$$SLURM_ARRAY_TASK_ID,SLURM_ARRAY_TASK_MIN=$$SLURM_ARRAY_TASK_MIN" \
  "docker://${IMAGE}" convert --part "auto/${PARTS}"
