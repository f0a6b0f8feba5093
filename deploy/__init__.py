"""What puts Signalbox somewhere: the one-machine lab, and the command that joins every part."""
