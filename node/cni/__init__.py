"""The CNI plugin: a thin executable, and the service in the agent that does the work."""
