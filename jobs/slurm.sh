#!/usr/bin/env bash
#SBATCH --job-name=${JOB_NAME}
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
# Slurm sends SIGTERM two minutes before the time limit. The job saves a checkpoint, is queued again and
# continues at the checkpoint.
set -euo pipefail
work=$$(mktemp --directory)
trap 'rm -rf "$$work"' EXIT
code=0
srun apptainer run --nv --containall --workdir "$$work" --bind "${BUCKET}:/data" \
  --env "MODEL=${MODEL}" "docker://${IMAGE}" "${NUM_STEPS}" || code=$$?
# 143 is the exit code of a job that was stopped and has saved a checkpoint.
[[ $$code != 143 ]] || scontrol requeue "$$SLURM_JOB_ID"
exit "$$code"
