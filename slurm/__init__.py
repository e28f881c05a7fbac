"""Run any picklable call as a Slurm job, with submitit; knows nothing of training."""
