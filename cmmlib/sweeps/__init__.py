"""Many studies at once: a list or a grid of them, on the processes of a Dask cluster."""
