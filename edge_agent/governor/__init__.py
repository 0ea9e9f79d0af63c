"""How a device keeps within its limits: what it reads of itself, and how far it steps down, by arithmetic alone"""
