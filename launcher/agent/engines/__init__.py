"""Engines of several nodes (Dask, Spark, ipyparallel, Ray, MPI) beside a kernel: a program of its own, which the keeper
brings when a target asks for one (docs/architecture.md §11)."""
