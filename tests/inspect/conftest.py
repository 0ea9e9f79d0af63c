"""A registry of its own for each test, as in tests/registry."""

from tests.registry.conftest import own_home as own_home
