"""The configuration files of a Slurm that lives in one folder of one machine."""

from collections.abc import Mapping
from pathlib import Path

GPUS_PER_NODE = 4
_SLURM = """\
ClusterName=box
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={slurmctld}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
# The least value that is accepted: a requeued job waits one second longer than this.
AuthInfo=cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
PlugStackConfig={folder}/etc/plugstack.conf
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherParams=OverMemoryKill
JobAcctGatherFrequency=task=1
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
# Nodes may claim more CPUs and memory than this machine has.
SlurmdParameters=config_overrides
{warning}
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,{more}
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
SlurmctldTimeout=10
# A busy machine is no dead node: tests that lose one say so to the controller.
SlurmdTimeout=300
MessageTimeout=10
TCPTimeout=5
BatchStartTimeout=300
CompleteWait=0
KillWait=2
# A step that ends while slurmctld is away reports again after 60 s; a shorter wait drains the node.
UnkillableStepTimeout=180
InactiveLimit=0
MinJobAge={remembered_seconds}
# Other ids than the last box here had: submitit names its files by job id.
FirstJobId={first_job}
WaitTime=0
EpilogMsgTime=0
MaxArraySize={max_array_size}
MaxJobCount=20000
PropagateResourceLimits=NONE
{accounting}
{nodes}
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace} {rest}
PartitionName=hard Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime=0 {rest}
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF {rest}
"""
_BUSY = "bf_yield_interval=100000,default_queue_depth=1000,nohold_on_prolog_fail"
_PARTITION = "OverSubscribe=NO DefaultTime=60 MaxTime=INFINITE State=UP"
_NODE = (
    "NodeName=n{number} NodeHostname=n{number} NodeAddr=127.0.0.{address} Port={port} "
    "CPUs={cpus} RealMemory={memory} Gres=gpu:fake:{gpus} State=UNKNOWN"
)
_GRES = """\
AutoDetect=off
NodeName=n[1-{nodes}] Name=gpu Type=fake File={folder}/dev/nvidia[0-{gpus}]
"""
_ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={slurmdbd}
AccountingStorageTRES=gres/gpu"""
_SLURMDBD = """\
AuthType=auth/none
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={slurmdbd}
SlurmUser=root
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mariadbd}
StorageUser=root
StoragePass=box
StorageLoc=slurm_acct
CommitDelay=0
"""
MARIADBD = (
    "--no-defaults",
    "--skip-grant-tables",
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--skip-log-bin",
    "--performance-schema=0",
    "--sync-frm=OFF",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=0",
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=16M",
    "--innodb-lock-wait-timeout=900",
    "--user=root",
)


def write_files(folder: Path, ports: Mapping[str, int], options: Mapping[str, int]) -> None:
    """Write everything below ``<folder>/etc``, and the folders that the daemons expect."""
    for name in ("etc", "log", "run", "state", "db", "dev", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    numbers = range(1, options["nodes"] + 1)
    for number in numbers:
        (folder / "spool" / f"n{number}").mkdir(exist_ok=True)
    for number in range(GPUS_PER_NODE):
        # Slurm wants character devices, and numbers them by the digits that end the name.
        (folder / "dev" / f"nvidia{number}").symlink_to("/dev/null")
    nodes = [
        _NODE.format(
            number=number,
            address=10 + number,
            port=ports[f"n{number}"],
            gpus=GPUS_PER_NODE,
            **options,
        )
        for number in numbers
    ]
    accounting = "AccountingStorageType=accounting_storage/none"
    if options["accounting"]:
        accounting = _ACCOUNTING.format(**ports)
    warning = "SlurmctldParameters=preempt_send_user_signal" if options["warns"] else ""
    rest = {
        "warning": warning,
        "nodes": "\n".join(nodes),
        "accounting": accounting,
        "rest": _PARTITION,
        "more": _BUSY,
    }
    files = {
        "slurm.conf": _SLURM.format(folder=folder, **{**ports, **options, **rest}),
        "slurmdbd.conf": _SLURMDBD.format(folder=folder, **{"slurmdbd": 0, "mariadbd": 0, **ports}),
        "gres.conf": _GRES.format(nodes=len(nodes), gpus=GPUS_PER_NODE - 1, folder=folder),
        # slurmd loads a cgroup plugin in any case; one without a mount point does no harm.
        "cgroup.conf": f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={folder}/etc/nocgroup\n",
        "plugstack.conf": "",
        "hosts": "127.0.0.1 localhost\n"
        + "".join(f"127.0.0.{10 + number} n{number}\n" for number in numbers),
    }
    for name, text in files.items():
        path = folder / "etc" / name
        path.write_text(text)
        path.chmod(0o600 if name == "slurmdbd.conf" else 0o644)
