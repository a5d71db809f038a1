"""sources: where the bytes of images come from. A folder, or files that hold many images; one module each.

`address` finds the source that a recipe names. Each offers the same as `base.Source`.
"""
