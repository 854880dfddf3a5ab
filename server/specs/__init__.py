"""What the server says of its own interface: JSON Schema, OpenAPI, AsyncAPI, all made from the types."""
