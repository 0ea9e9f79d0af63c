"""Rules over events of several senses: what has to come together, and when it has"""
