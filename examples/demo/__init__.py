"""The demo: a real agent in a real microVM repairs a project behind the fence, watched by an observer."""
