"""What the lab puts in front of servers that are not strict enough by themselves; run inside Envoy."""
