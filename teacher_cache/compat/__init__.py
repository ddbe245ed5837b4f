"""The unstable APIs of zarr and aiobotocore that medalign uses, one module for each library."""
