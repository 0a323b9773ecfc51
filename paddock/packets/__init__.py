"""JSON packets over SOCK_SEQPACKET socketpairs: how supervisors talk to the recorder and the broker of their host."""
