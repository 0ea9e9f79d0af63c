"""Settings that fit a device."""
