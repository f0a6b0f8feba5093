"""The lab: a cluster on one machine, out of the same parts as a real one, in network namespaces of its own.

layout     names, paths and addresses of a lab (pure)
processes  starting, recording and ending its processes
substrate  namespaces, the underlay, a node's Open vSwitch
kubelet    pods: namespace, CNI plugin, command
cluster    the lab as a whole
guardian   takes a lab down when its owner dies
cli        signalbox lab
"""
