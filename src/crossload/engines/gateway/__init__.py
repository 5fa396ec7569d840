"""The gateway: an app's model traffic goes through it, so that which cloud answers is a weight and not a deployment.

Every wire in `wire/` is a door for clients and a way to model hosts, streaming too, any to any. See docs/gateway.md."""
