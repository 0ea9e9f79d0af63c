"""The side that receives: what devices report is heard, acknowledged and counted."""
