"""From records and a checkpoint of the zoo to a trained checkpoint: pipeline.config, schedule, training, saving.

How a model computes belongs in `engines`; what is made of the trained model in `results`.
"""
