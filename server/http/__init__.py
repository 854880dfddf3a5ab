"""What the server offers over HTTP beside its socket."""
