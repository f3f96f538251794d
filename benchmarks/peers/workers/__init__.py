"""Programs that drive the peers; each runs in the environment of its peer."""
