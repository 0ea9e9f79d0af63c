"""The receiving side: what devices report is heard, acknowledged and counted."""
