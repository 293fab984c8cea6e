"""The commands of `mlrg`, one file each."""
