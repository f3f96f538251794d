"""What the engine does when something arrives: load, ask the core, store, publish, acknowledge."""
