"""Divide subtomograms among structures that are found on the way, with a number of classes or without one."""
