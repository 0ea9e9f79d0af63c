"""What Home Assistant is told of a device: one message that describes all its entities"""
