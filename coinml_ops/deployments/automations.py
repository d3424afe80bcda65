"""Automations of the Prefect server for runs whose worker is gone, and for runs that are skipped.

A worker marks its own dead runs as crashed; these automations do it where the worker died, too.
It frees the run's concurrency slots in deployment and queue; the next run continues the work.

A run that is due while the previous one is in progress is cancelled by the server, and the list of
runs shows it as Cancelled; a third automation names it Skipped.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect.events.schemas.automations import AutomationCore

TAG = "coinml"
"""Every run of coinml has this tag; the automations leave other runs on the server alone."""

SILENT_S = 240.0
"""A run without a heartbeat for so long counts as dead; one is sent every 30 s.

On a busy machine heartbeats are lost: with twelve processes on two cores, a living run was silent
for two minutes. It must be less than the 300 s after which Prefect's lease on a deployment's slot
expires: a slot released twice would let two runs in.
"""

STARTING_S = 600.0
"""A run that a worker has taken and not started after so long counts as dead."""

HEARTBEAT = "prefect.flow-run.heartbeat"
SKIPPED = "Skipped"
"""As `tasks.outcomes.SKIPPED`, which cannot be imported before the project is found."""

ENDS = {
    f"prefect.flow-run.{name}" for name in ("Completed", SKIPPED, "Failed", "Crashed", "Cancelled")
}
LEAVES_RUNNING = ENDS | {
    f"prefect.flow-run.{name}"
    for name in ("Cancelling", "Suspended", "Paused", "AwaitingRetry", "Retrying", "TimedOut")
}


def automations() -> list[AutomationCore]:
    """For runs without heartbeats, for runs that never started, and for those that are skipped."""
    return [
        _crash_unless(
            name="coinml: a run fell silent",
            description=f"No heartbeat for {SILENT_S:g} s: its process is gone, and so is its "
            "worker.",
            after=HEARTBEAT,
            expect={HEARTBEAT, *LEAVES_RUNNING},
            within_s=SILENT_S,
        ),
        _crash_unless(
            name="coinml: a run never began",
            description=f"Taken by a worker {STARTING_S:g} s ago and not started: the worker is "
            "gone.",
            after="prefect.flow-run.Pending",
            expect={
                "prefect.flow-run.Running",
                HEARTBEAT,
                "prefect.flow-run.Scheduled",
                "prefect.flow-run.AwaitingConcurrencySlot",
                *LEAVES_RUNNING,
            },
            within_s=STARTING_S,
        ),
        _name_skipped(),
    ]


def _crash_unless(
    *, name: str, description: str, after: str, expect: set[str], within_s: float
) -> AutomationCore:
    """An automation that marks a run as crashed.

    Args:
        name: Its name; an automation of the same name is updated.
        description: Also the message of the state Crashed.
        after: The event that starts the clock.
        expect: Events of the same run that stop it.
        within_s: Seconds on the clock.
    """
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    return AutomationCore(
        name=name,
        description=description,
        tags=[TAG],
        trigger=EventTrigger(
            after={after},
            expect=expect,
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={
                "prefect.resource.id": f"prefect.tag.{TAG}",
                "prefect.resource.role": "tag",
            },
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=within_s),
        ),
        actions=[
            ChangeFlowRunState(name=None, state=StateType.CRASHED, message=description, force=False)
        ],
    )


def _name_skipped() -> AutomationCore:
    """An automation that names runs which a deployment's limit has cancelled."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    return AutomationCore(
        name="coinml: a run was skipped",
        description=f"It was due while the previous run was in progress: it is named {SKIPPED}.",
        tags=[TAG],
        trigger=EventTrigger(
            expect={"prefect.flow-run.Cancelled"},
            match={
                "prefect.resource.id": "prefect.flow-run.*",
                # What `CANCEL_NEW` says, so that runs which a person has cancelled stay Cancelled.
                "prefect.state-message": "Deployment concurrency limit reached.",
            },
            match_related={
                "prefect.resource.id": f"prefect.tag.{TAG}",
                "prefect.resource.role": "tag",
            },
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[
            ChangeFlowRunState(
                name=SKIPPED,
                state=StateType.CANCELLED,
                message="The previous run was still in progress.",
                force=False,
            )
        ],
    )
