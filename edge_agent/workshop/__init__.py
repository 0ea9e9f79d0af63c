"""What is done on a workstation, not on the device: training, export, calibration, reports. Extra `[train]`."""
