"""The catalogue of both model zoos, and how a pipeline.config is read.

What this job writes into a pipeline.config belongs in `training`, and what builds a model out of it in `engines`.
"""
