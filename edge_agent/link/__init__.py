"""The connection to the broker: what is sent, acknowledged, kept and answered."""
