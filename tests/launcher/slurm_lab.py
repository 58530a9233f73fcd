"""A SLURM of one node on this machine: real daemons on ports and in folders of their own, no systemd, no cgroups."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

CPUS = 8
PARTITIONS = ("main", "high", "short")

CONF = """
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/run/munge.socket,cred_expire=10
CredType=cred/munge
MpiDefault=none
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.log
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
SwitchType=switch/none
ReturnToService=2
# More processors than there are, so that jobs run side by side.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=200000,batch_sched_delay=1
# A job is killed soon after its signal, and returns soon after cred_expire; that must be longer.
KillWait={kill_wait}
MinJobAge=600
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=60 DefaultTime=5 PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=high Nodes={host} MaxTime=60 PriorityTier=10 PreemptMode=OFF
PartitionName=short Nodes={host} MaxTime=1 PriorityTier=1 PreemptMode=REQUEUE
"""


class Lab:
    """Starts and stops the daemons; ``environment`` is what a client needs.

    Args:
        root: a folder with a short path, made where it is missing.
        kill_wait: seconds between a job's SIGTERM and its SIGKILL.
    """

    def __init__(self, root: Path, kill_wait: int = 5) -> None:
        self.root = root
        for name in ("etc", "run", "log", "state", "spool"):
            (root / name).mkdir(parents=True, exist_ok=True)
        root.chmod(0o755)
        self.conf = root / "etc" / "slurm.conf"
        self.host = socket.gethostname().split(".")[0]
        settings = {"root": root, "host": self.host, "ports": free_ports(2), "cpus": CPUS, "kill_wait": kill_wait}
        self.conf.write_text(CONF.format(**settings))
        self.environment = {"SLURM_CONF": str(self.conf)}

    def start(self) -> None:
        """Start munged, slurmctld and slurmd, and wait until the node takes jobs."""
        key = self.root / "etc" / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        run, log = self.root / "run", self.root / "log"
        self._call(
            "munged", "--force", f"--key-file={key}", f"--socket={run}/munge.socket", f"--pid-file={run}/munged.pid",
            f"--log-file={log}/munged.log", f"--seed-file={run}/munged.seed", "--num-threads=2",
        )  # fmt: skip
        self._call("slurmctld", "-c")
        self._call("slurmd")
        deadline = time.monotonic() + 30
        while self.ask("sinfo", "--noheader", "--format=%T").split()[:1] != ["idle"]:
            assert time.monotonic() < deadline, self.ask("sinfo")
            time.sleep(0.2)

    def stop(self) -> None:
        """Cancel jobs and end the daemons."""
        self.ask("scancel", "--user=root")
        time.sleep(1)
        for name in ("slurmd", "slurmctld", "munged"):
            pid = (self.root / "run" / f"{name}.pid").read_text().strip()
            subprocess.run(["kill", pid])
            deadline = time.monotonic() + 15
            while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
                time.sleep(0.1)
            subprocess.run(["kill", "-9", pid], stderr=subprocess.DEVNULL)

    def ask(self, *command: str) -> str:
        """Return what a SLURM command prints, errors too."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
        )
        return done.stdout.strip()

    def jobs(self) -> dict[str, str]:
        """Return the state of every job, by ``id`` or ``id_task``."""
        lines = self.ask("squeue", "--noheader", "--array", "--states=all", "--format=%F|%K|%T").splitlines()
        rows = [line.split("|") for line in lines if "|" in line]
        return {array if task == "N/A" else f"{array}_{task}": state for array, task, state in rows}

    def _call(self, *command: str) -> None:
        # Daemons keep what they inherit: with pipes, the caller would wait for their end.
        subprocess.run(
            command, env={**os.environ, **self.environment}, check=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


def free_ports(count: int) -> list[int]:
    """Find ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
