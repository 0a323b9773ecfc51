"""One machine with all parts: what `make setup` builds and `paddock up` starts."""
