"""Where a loaded student looks, and how well it agrees with its teacher."""
