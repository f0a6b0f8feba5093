"""The central process: OpenFlow channel, per-switch sync, admin API and command line."""
