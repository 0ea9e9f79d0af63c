"""How good it is: mAP, accuracy, F1, correlation, from arrays alone."""
