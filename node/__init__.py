"""What runs on each node: the agent and the CNI plugin."""
