"""Engines build, train, run and save a model. There is one engine for each generation of the zoo.

Code that decides when to train, save, evaluate and stop belongs in `training`. Code that uses a trained model belongs
in `results`.
"""
