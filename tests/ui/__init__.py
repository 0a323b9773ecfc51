"""Tests that do what a person does in the Temporal UI, by a real browser on a real `paddock up`."""
