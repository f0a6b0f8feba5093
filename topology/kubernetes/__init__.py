"""Kubernetes' API server as a source of the cluster's state."""
