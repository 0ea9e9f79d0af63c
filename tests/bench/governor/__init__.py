"""The governor's rules and their rivals over ten simulated days: see __main__.py."""
