"""What both engines use, and every change that is made to upstream's code at run time (`patches`).

Import it only after the engine has set TensorFlow's mode.
"""
