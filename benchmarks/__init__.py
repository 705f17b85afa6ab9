"""Measurements of the method: how fast errors fall. The tests assert what the pages report."""
