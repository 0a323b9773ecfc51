"""Ground under hosts: where machines come from, behind one contract."""
