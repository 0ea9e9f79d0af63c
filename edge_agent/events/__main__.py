"""Print the schema of events: deploy/event.schema.json."""

from edge_agent.events import schema_text

print(schema_text(), end="")
