"""Kopf handlers, the controller, Kubernetes manifests and the command line."""
