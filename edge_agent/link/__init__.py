"""The connection to the broker: sent, acknowledged, kept, answered."""
