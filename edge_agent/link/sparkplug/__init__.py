"""The device as an edge node of Sparkplug B, its pipelines as devices: a view beside the events in JSON."""
