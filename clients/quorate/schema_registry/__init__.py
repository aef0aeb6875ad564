"""A registry of schemas in a topic. Use quorate.SchemaRegistry or quorate.sync.SchemaRegistry."""
