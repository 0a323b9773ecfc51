"""The `paddock` program: one file a noun; what a person reads is written here and nowhere else."""
