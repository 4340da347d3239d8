"""The command `morpheus`."""
