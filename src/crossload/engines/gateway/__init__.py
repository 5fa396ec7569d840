"""The gateway: an app's model traffic goes through it, so that which cloud answers is a weight and not a deployment.

Doors: OpenAI chat completions and Bedrock Converse, streaming too, either to either. See docs/gateway.md."""
