"""What builds, trains, runs and saves a model: one engine for each generation of the zoo.

When to train, save, evaluate and stop belongs in `training`, and what becomes of a trained model in `results`.
"""
