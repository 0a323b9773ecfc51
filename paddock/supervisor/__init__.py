"""The process that owns one sandbox: its VMM, channel, egress gateway, tasks and lease."""
