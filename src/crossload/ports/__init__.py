"""The seams: what stages and engines may ask of the outside, in neutral words."""
