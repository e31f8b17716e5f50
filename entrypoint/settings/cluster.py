"""A cluster of machines that train one model together, as TensorFlow's TF_CONFIG describes it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, model_validator

TYPES = ("chief", "worker")


class Task(BaseModel):
    """The member of the cluster that this process is."""

    model_config = ConfigDict(frozen=True)

    type: str
    index: int


class Cluster(BaseModel):
    """The addresses of the members by type, and the member that this process is."""

    model_config = ConfigDict(frozen=True)

    cluster: dict[str, list[str]]
    task: Task

    @model_validator(mode="after")
    def refuse_foreign_tasks(self) -> Cluster:
        """Raises ValueError if a task is not a chief or a worker, or if this process is not a member.

        Every member trains in step with the others: there are no parameter servers and no evaluators.
        """
        for name in (*(name for name, members in self.cluster.items() if members), self.task.type):
            if name not in TYPES:
                raise ValueError(f"the type of a task is {name!r}; it must be {' or '.join(TYPES)}")
        if not 0 <= self.task.index < len(self.cluster.get(self.task.type, [])):
            raise ValueError(f"{self.task.type} {self.task.index} is not a member of the cluster")
        return self

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @property
    def size(self) -> int:
        """The number of machines."""
        return sum(map(len, self.cluster.values()))

    @property
    def rank(self) -> int:
        """The position of this member in the order chief, worker 0, worker 1, ..."""
        before = len(self.cluster.get("chief", [])) if self.task.type == "worker" else 0
        return before + self.task.index

    @property
    def is_chief(self) -> bool:
        """Whether this member evaluates, exports and publishes."""
        return self.rank == 0
