"""Code that both engines use. `patches` holds every change that is made to upstream's code at run time.

Import this package only after the engine has set TensorFlow's mode.
"""
