"""Farkernel starts Jupyter kernels anywhere you can reach, and keeps them whatever happens to the link in between."""

__version__ = "0.1.0"
