"""On a workstation: train, quantize, prune, tune, evaluate, edit graphs, report."""
