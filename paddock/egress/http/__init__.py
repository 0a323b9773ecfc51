"""HTTP/1.1 without sockets: hostile bytes in, typed messages out, and our own bytes for what goes on."""
