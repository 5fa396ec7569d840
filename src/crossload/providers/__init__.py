"""One folder per outside party. Only `wiring` imports this room; nothing in it is loaded until it is named."""
