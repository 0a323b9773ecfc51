"""How a new host comes to its credentials: its machine's own identity opens a grant at OpenBao or Vault, once."""
