"""The formats of annotations: one module for each, which recognises its files, reads them, and declares it as FORMAT.

Whether the boxes of a file are right belongs in `annotations` and `boxes`.
"""
