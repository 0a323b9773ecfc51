"""Things to run: a project whose tests fail, policies, and the demo that repairs the one under the other."""
