"""Tilt series' metadata as files, one module for each program."""
