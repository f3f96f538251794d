"""What the scheduler bridge costs on top of what Kubernetes itself can do on the same machine."""
