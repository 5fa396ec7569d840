"""The nouns: places, assets, digests, quantities, diagnostics, evidence, and the migration file's schema."""
