"""The supervisor of one runtime, whatever machine is around it: its life, its limits, what its kernels do, its drives."""
