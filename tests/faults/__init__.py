"""The fault driver: seeded kills and stops of every process during real sandboxes; one number reproduces a run."""
