"""What must not matter: how an optimizer step is cut, laid out, padded, ordered or spread over processes."""
