"""A step list as the harness sees it: its moves, each a do or an undo, whatever the steps are called."""

from dataclasses import dataclass

from paddock.contracts.base import Wire
from paddock.contracts.hosts import ResolvedPolicy, Sealed
from workflows import steps
from workflows.saga import Do, Step, Undo, Where


class Nothing(Wire):
    """The answer of an activity that only acknowledges."""


@dataclass(frozen=True, slots=True)
class Move:
    """One way of one step; its name is the step's, or `undo_` before it."""

    step: Step
    back: bool = False

    @property
    def act(self) -> Do | Undo:
        act = self.step.undo if self.back else self.step.do
        assert act
        return act

    @property
    def local(self) -> bool:
        return self.act.where is Where.CONTROL

    @property
    def seals(self) -> bool:
        return self.act.answer is Sealed

    def __str__(self) -> str:
        return f"undo_{self.step.name}" if self.back else self.step.name


# Not steps of the saga: nothing of them is undone, but the lifecycle waits for them too.
ADMIT = Step("admit", Do("resolve_policy", Where.CONTROL, ResolvedPolicy))
TELLS = tuple(Step(name, Do(name, Where.HOST_CONTROL, Nothing)) for name in ("extend_lease", "allow_caller"))


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of one lifecycle, in order."""

    name: str
    before_the_task: tuple[Step, ...]
    after: tuple[Step, ...] = (steps.RUN, steps.COLLECT)

    @property
    def steps(self) -> tuple[Step, ...]:
        return (ADMIT, *self.before_the_task, *self.after)

    @property
    def moves(self) -> tuple[Move, ...]:
        """Every do in order, then every undo as it comes: newest first."""
        dos = tuple(Move(step) for step in self.steps if step.do)
        return (*dos, *(Move(step, back=True) for step in reversed(self.steps) if step.undo))

    @property
    def calls(self) -> tuple[Move, ...]:
        """All that a worker must be able to do."""
        return (*self.moves, *(Move(step) for step in TELLS))

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)


class Mounted(Wire):
    """What the added step answers."""

    device: str
    bytes: int


# A step that no code knows by its name.
VOLUME = Step("volume", Do("mount_volume", Where.HOST, Mounted), Undo("unmount_volume"), ("volume", "volume-key"))
REAL = Plan("real", steps.BEFORE_THE_TASK)
_FENCE_LAST = steps.BEFORE_THE_TASK[:-1]
LONGER = Plan("longer", (*_FENCE_LAST, VOLUME, steps.BEFORE_THE_TASK[-1]))
PLANS = {plan.name: plan for plan in (REAL, LONGER)}
