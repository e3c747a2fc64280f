"""Slurm's words, from squeue(1): "JOB STATE CODES", "JOB REASON CODES", and the resource limits guide.

Releases 20.11 to 26.05; a word that is not here is shown as it is.
"""

from __future__ import annotations

from .contract import JobState

STATES = {
    "PENDING": JobState.QUEUED,
    "CONFIGURING": JobState.STARTING,
    "POWER_UP_NODE": JobState.STARTING,
    "RUNNING": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "STOPPED": JobState.RUNNING,
    "SUSPENDED": JobState.RUNNING,
    "COMPLETING": JobState.ENDING,
    "STAGE_OUT": JobState.ENDING,
    "REQUEUED": JobState.QUEUED,
    "REQUEUE_FED": JobState.QUEUED,
    "REQUEUE_HOLD": JobState.HELD,
    "RESV_DEL_HOLD": JobState.HELD,
    "SPECIAL_EXIT": JobState.HELD,
    "BOOT_FAIL": JobState.ENDED,
    "CANCELLED": JobState.ENDED,
    "COMPLETED": JobState.ENDED,
    "DEADLINE": JobState.ENDED,
    "FAILED": JobState.ENDED,
    "LAUNCH_FAILED": JobState.ENDED,
    "NODE_FAIL": JobState.ENDED,
    "OUT_OF_MEMORY": JobState.ENDED,
    "PREEMPTED": JobState.ENDED,
    "RECONFIG_FAIL": JobState.ENDED,
    "REVOKED": JobState.ENDED,
    "TIMEOUT": JobState.ENDED,
}

# A pending job with one of these starts only when somebody lets it go.
HOLDING = frozenset({"JobHeldUser", "JobHeldAdmin", "JobHoldMaxRequeue", "launch failed requeued held"})

REASONS = {
    "None": "the scheduler has not looked at it yet",
    "Resources": "it is next, and waits for nodes to become free",
    "Priority": "jobs of higher priority are before it",
    "Dependency": "it waits for another job",
    "BeginTime": "its begin time has not come",
    "Licenses": "it waits for a licence",
    "Reservation": "it waits for its reservation",
    "Prolog": "the nodes are being prepared",
    "Cleaning": "a former run of it is being cleared up",
    "JobHeldUser": "it is held; let it go with: scontrol release",
    "JobHeldAdmin": "an administrator holds it",
    "JobHoldMaxRequeue": "it was requeued too often and is held",
    "JobLaunchFailure": "it could not be launched",
    "JobArrayTaskLimit": "the job array's limit of running tasks is reached",
    "BadConstraints": "no node can ever fulfil its constraints",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is inactive: it starts no jobs now",
    "PartitionNodeLimit": "it asks for more nodes than the partition allows, or for nodes that are down",
    "PartitionTimeLimit": "it asks for more time than the partition allows",
    "PartitionConfig": "the partition's settings do not allow it",
    "NodeDown": "a node that it needs is down",
    "ReqNodeNotAvail": "a node that it needs is not available now (down, drained or reserved)",
    "FrontEndDown": "no front-end node is available",
    "InactiveLimit": "it reached the limit for inactive jobs",
    "InvalidAccount": "the account is not valid",
    "InvalidQOS": "the QOS is not valid",
    "AccountNotAllowed": "the account may not use this partition",
    "QOSNotAllowed": "the QOS may not be used here",
    "QOSUsageThreshold": "the QOS is over its usage threshold",
    "QOSResourceLimit": "the QOS is at one of its limits",
    "QOSTimeLimit": "the QOS has used up its time",
    "QOSJobLimit": "the QOS runs as many jobs as it may",
    "AssociationJobLimit": "your account runs as many jobs as it may",
    "AssociationResourceLimit": "your account is at one of its limits",
    "AssociationTimeLimit": "your account has used up its time",
    "AssocMaxJobsLimit": "your account runs as many jobs as it may",
    "AssocGrpCpuLimit": "your account uses as many CPUs as it may",
    "AssocGrpMemLimit": "your account uses as much memory as it may",
    "AssocGrpNodeLimit": "your account uses as many nodes as it may",
    "AssocGrpBillingMinutes": "your account has used up its budget",
    "AssocGrpCPUMinutesLimit": "your account has used up its CPU time",
    "QOSGrpBillingMinutes": "the QOS has used up its budget",
    "QOSMaxJobsPerUserLimit": "you run as many jobs as the QOS lets one user run",
    "QOSMaxSubmitJobPerUserLimit": "you have as many jobs submitted as the QOS allows",
    "QOSMaxCpuPerUserLimit": "you use as many CPUs as the QOS lets one user use",
    "QOSMaxGRESPerUser": "you use as many GPUs as the QOS lets one user use",
    "QOSMaxMemoryPerUser": "you use as much memory as the QOS lets one user use",
    "QOSMaxNodePerUserLimit": "you use as many nodes as the QOS lets one user use",
    "QOSMaxWallDurationPerJobLimit": "it asks for more time than the QOS allows",
    "QOSMaxCpuPerJobLimit": "it asks for more CPUs than the QOS allows in one job",
    "QOSMinGRES": "it asks for fewer GPUs than the QOS wants",
    "QOSGrpCpuLimit": "all users of the QOS together use as many CPUs as they may",
    "QOSGrpGRES": "all users of the QOS together use as many GPUs as they may",
    "QOSGrpJobsLimit": "all users of the QOS together run as many jobs as they may",
    "QOSGrpMemLimit": "all users of the QOS together use as much memory as they may",
    "QOSGrpNodeLimit": "all users of the QOS together use as many nodes as they may",
    "BurstBufferResources": "it waits for room in the burst buffer",
    "BurstBufferStageIn": "its data is being brought to the burst buffer",
    "DeadLine": "it cannot end before its deadline",
    "MaxMemPerLimit": "it asks for more memory than one CPU or node may have",
    "SchedDefer": "the scheduler puts off looking at it",
}

# Limits are named by a system (resource limits guide, "Job reason codes"): whose limit, of what, for what.
_WHOSE = (
    ("AssocGrp", "your account"),
    ("AssocMax", "your account"),
    ("QOSGrp", "the QOS"),
    ("QOSMax", "the QOS"),
)


def explain(reason: str) -> str:
    """Why a job waits, as a sentence's end; the scheduler's own word stands behind it."""
    word = reason.partition(",")[0].strip()
    if not word or word == "(null)":
        return REASONS["None"]
    if word in REASONS:
        return f"{REASONS[word]} ({reason})"
    for prefix, whose in _WHOSE:
        if word.startswith(prefix):
            return f"{whose} is at a limit ({reason})"
    return reason
