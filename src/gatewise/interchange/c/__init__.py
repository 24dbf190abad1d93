"""A network as a dependency-free C99 library."""

from gatewise.interchange.c.export import CParity, LayerError, Sizes, export_c

__all__ = ["CParity", "LayerError", "Sizes", "export_c"]
