"""The fleet demo: a sandbox on each of four emulated clouds, from no host to the last receipt, under observation."""
