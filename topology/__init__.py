"""The cluster model, its graph, naming rules, and the sources that feed them. Imports no other part of Signalbox."""
