"""Signalbox in a Kubernetes cluster: its manifests, and what a node's pod finds out before the agent starts."""
