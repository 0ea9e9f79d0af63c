"""How good is it: the figures of detectors and text models, from arrays alone (numpy)."""
