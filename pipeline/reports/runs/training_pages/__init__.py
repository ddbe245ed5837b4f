"""Pages of the commands that train: `student train` and `student align`."""
