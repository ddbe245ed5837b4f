"""The label-free stage: settings, plan and run of `student align`."""
