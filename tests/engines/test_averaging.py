import tensorflow as tf

from entrypoint.engines.shared import averaging

WEIGHTS = [[1.0, -2.0], *([step * 0.5, step**0.5] for step in range(1, 40))]


def of_tensorflow() -> list[list[float]]:
    """The averages of TensorFlow's own class after each step."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        step = tf.compat.v1.train.get_or_create_global_step()
        weight = tf.compat.v1.get_variable("weight", initializer=WEIGHTS[0])
        average = tf.train.ExponentialMovingAverage(averaging.DECAY, num_updates=step)
        move = average.apply([weight])
        session.run(tf.compat.v1.global_variables_initializer())
        found = []
        for passed, value in enumerate(WEIGHTS[1:], start=1):
            weight.load(value, session)
            step.load(passed, session)
            session.run(move)
            found.append(session.run(average.average(weight)).tolist())
        return found


def test_average_is_that_of_tensorflow_with_its_ramp() -> None:
    average = tf.Variable(WEIGHTS[0])
    found = []
    for passed, value in enumerate(WEIGHTS[1:], start=1):
        averaging.move(average, tf.constant(value), averaging.rate(tf.constant(passed, tf.int64)))
        found.append(average.numpy().tolist())
    assert found == of_tensorflow()
