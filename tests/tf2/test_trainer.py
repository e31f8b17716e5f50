from __future__ import annotations

from types import SimpleNamespace

import pytest

from entrypoint import pipeline
from entrypoint.errors import UserError


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ("", ["Conv1/kernel:0", "Conv2/kernel:0", "BoxPredictor/bias:0"]),
        ('freeze_variables: "Conv"', ["BoxPredictor/bias:0"]),
        ('update_trainable_variables: ".*kernel" freeze_variables: "Conv1/"', ["Conv2/kernel:0"]),
    ],
)
def test_variables_that_a_config_freezes_are_not_trained(fields: str, names: list[str]) -> None:
    from entrypoint.tf2 import trainer

    train = pipeline.parse(f"train_config {{ {fields} }}").train_config
    variables = [SimpleNamespace(name=name) for name in ("Conv1/kernel:0", "Conv2/kernel:0", "BoxPredictor/bias:0")]
    assert [each.name for each in trainer.to_train(variables, train)] == names


def test_nothing_left_to_train_is_a_named_error() -> None:
    from entrypoint.tf2 import trainer

    train = pipeline.parse('train_config { freeze_variables: ".*" }').train_config
    with pytest.raises(UserError, match="leave no variable to train"):
        trainer.to_train([SimpleNamespace(name="Conv1/kernel:0")], train)
