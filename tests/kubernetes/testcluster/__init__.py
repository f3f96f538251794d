"""Real Kubernetes control planes for tests: see docs/testing-kubernetes.md."""
