"""Lake tables: Iceberg, whose metadata names absolute paths, and Delta, whose log must come last."""
