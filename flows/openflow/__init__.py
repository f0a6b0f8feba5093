"""The OpenFlow 1.5 codec: values to bytes and bytes to values. No sockets, no state but a framer's remainder."""
