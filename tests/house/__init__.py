"""House rules: what keeps the code readable and its layers apart."""
