"""What medalign uses of zarr's young API, in one module."""
