"""The spine: steps, their order, and the durable run that performs them."""
