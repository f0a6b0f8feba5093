"""Pure functions from cluster state to flow tables, and the codec that makes OpenFlow bytes of them."""
