"""The trained model in the formats of EXPORTS: one module for each format, which declares it as FORMAT.

What all formats share belongs in `formats` and `export`; how a model is saved for a format in the engines.
"""
