"""The ten steps of the guide, one flat file each. Stages decide; engines do; providers speak."""
