"""Tests of signed bundles and of how a device takes them."""
