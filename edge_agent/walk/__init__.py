"""The way of a sample: mailbox, chain of tasks, report, event."""
