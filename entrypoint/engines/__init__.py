"""What builds, trains, runs and saves a model: one engine for each generation of the zoo.

When to train, save, evaluate and stop is decided in `training`; what becomes of a trained model in `results`.
"""
