"""Patches between two versions of a file: tensors by XOR, anything else by chunks cut from the content."""
