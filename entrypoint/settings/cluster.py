"""Several machines that train one model: what TensorFlow's TF_CONFIG says of them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, model_validator

TYPES = ("chief", "worker")


class Task(BaseModel):
    """Which member of the cluster this process is."""

    model_config = ConfigDict(frozen=True)

    type: str
    index: int


class Cluster(BaseModel):
    """The members' addresses by type, and which of them this process is."""

    model_config = ConfigDict(frozen=True)

    cluster: dict[str, list[str]]
    task: Task

    @model_validator(mode="after")
    def refuse_foreign_tasks(self) -> Cluster:
        """Every member trains in step with the others: there are no parameter servers and no evaluators."""
        for name in (*(name for name, members in self.cluster.items() if members), self.task.type):
            if name not in TYPES:
                raise ValueError(f"a task of type {name!r}; members are of type {' or '.join(TYPES)} alone")
        if not 0 <= self.task.index < len(self.cluster.get(self.task.type, [])):
            raise ValueError(f"{self.task.type} {self.task.index} is none of the cluster's members")
        return self

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @property
    def size(self) -> int:
        """The number of machines."""
        return sum(map(len, self.cluster.values()))

    @property
    def rank(self) -> int:
        """This member's place in the order chief, worker 0, worker 1, ..."""
        before = len(self.cluster.get("chief", [])) if self.task.type == "worker" else 0
        return before + self.task.index

    @property
    def is_chief(self) -> bool:
        """Whether this member is the one that evaluates, exports and publishes."""
        return self.rank == 0
