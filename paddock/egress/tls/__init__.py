"""TLS on byte streams: the hello is read before anything is decided, certificates are made per sandbox and name."""
