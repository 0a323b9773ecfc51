"""A machine that runs sandboxes: the keeper, its slots and inventory, and the way to its supervisors."""
