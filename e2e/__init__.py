"""End-to-end tests: the product as its users meet it, on a real Kubernetes cluster (docs/kubernetes.md)."""
