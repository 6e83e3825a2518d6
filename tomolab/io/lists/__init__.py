"""Particle lists as files, one module for each program's format."""
