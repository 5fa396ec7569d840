"""Neutral foundations -> Terraform text and collector settings, checked offline against the providers' real schemas."""
