"""A node with a real kubelet, containerd and runc, in namespaces of its own."""
