"""The documentation for users: Markdown, with tables that are made from the messages themselves."""
