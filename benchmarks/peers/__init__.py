"""The same small work for Cairn and for other workflow systems, on the same machine in one run."""
