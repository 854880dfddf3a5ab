"""What a person types: one module per command. Nothing in the server imports these."""
