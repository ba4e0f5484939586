"""A Slurm cluster of two nodes on this one machine, so that SkyPilot has a place to really run tasks.

    python tests/sky/machine.py up DIRECTORY      as root; prints what to export
    python tests/sky/machine.py down DIRECTORY    leaves the machine as it was

Everything lies in DIRECTORY (which the nodes' Unix user must be able to reach, so not below /root)
but two things: that user and two lines of /etc/hosts, both removed by `down`. Installed packages
stay. Slurm, munge and sshd are this cluster's own, at ports and sockets of their own.
"""

import contextlib
import os
import pathlib
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

USER = "lorrysky"
HOSTS_MARK = "# lorry test-sky"
NODES = {"n1": "127.0.0.11", "n2": "127.0.0.12"}
PACKAGES = ["slurm-wlm", "munge", "openssh-server", "openssh-client", "rsync"]
PROGRAMS = ["slurmctld", "slurmd", "munged", "/usr/sbin/sshd", "rsync"]
# What a machine may need in order to reach package registries.
NETWORK = re.compile(r"(https?_proxy|no_proxy|(SSL|PIP|REQUESTS|CURL|UV)_.*)$", re.I)


def run(*command, **kwargs):
    return subprocess.run([str(part) for part in command], check=True, **kwargs)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Machine:
    """The cluster in `directory`; `sky_home` is the HOME of the SkyPilot that uses it."""

    def __init__(self, directory, uv):
        self.root = pathlib.Path(directory)
        self.uv = uv
        self.sky_home = self.root / "sky-home"
        self.user_home = self.root / "home"
        self.slurm_conf = self.root / "slurm" / "slurm.conf"

    # ---- up ------------------------------------------------------------------------------------

    def up(self):
        self.install()
        self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
        for name in ("slurm", "state", "spool", "log", "run", "ssh", "shim", "cache"):
            (self.root / name).mkdir(exist_ok=True)
        self.add_user()
        self.name_nodes()
        self.write_slurm()
        self.write_ssh()
        self.write_shims()
        self.write_sky_home()
        self.start()

    def install(self):
        if os.getuid() != 0:
            sys.exit("test-sky needs root: it adds a Unix user and starts slurmd and sshd")
        if all(shutil.which(program) for program in PROGRAMS):
            return
        if not shutil.which("apt-get"):
            sys.exit("test-sky needs " + ", ".join(PACKAGES) + " installed; there is no apt-get here")
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES,
            stdout=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})

    def add_user(self):
        with contextlib.suppress(KeyError):
            home = pathlib.Path(pwd.getpwnam(USER).pw_dir)
            if home != self.user_home:
                sys.exit(f"the user {USER} exists with home {home}: `machine.py down` there first")
            return
        # '*' is no password, but not a locked account, which sshd would refuse.
        run("useradd", "-m", "-d", self.user_home, "-s", "/bin/bash", "-p", "*", USER)
        shutil.chown(self.root / "cache", USER)

    def name_nodes(self):
        """SkyPilot looks the nodes' addresses up by their names."""
        hosts = pathlib.Path("/etc/hosts")
        text = hosts.read_text()
        if HOSTS_MARK not in text:
            lines = "".join(f"{ip} {name} {HOSTS_MARK}\n" for name, ip in NODES.items())
            hosts.write_text(text + ("" if text.endswith("\n") else "\n") + lines)

    def write_slurm(self):
        host, root = socket.gethostname(), self.root
        controller, first, second = free_port(), free_port(), free_port()
        self.slurm_conf.write_text(f"""\
ClusterName=lorry
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={root}/run/munge.socket
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd-%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
KillWait=5
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port={first},{second} CPUs=64 RealMemory=512000 Gres=gpu:H100:1
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
""")
        # The GPUs are names only: without a driver lorry trains on the processor.
        (self.slurm_conf.parent / "gres.conf").write_text(
            "NodeName=n1 Name=gpu Type=H100 File=/dev/zero\n"
            "NodeName=n2 Name=gpu Type=H100 File=/dev/full\n")

    def write_ssh(self):
        self.ssh_port = free_port()
        keys = self.sky_home / ".slurm"
        keys.mkdir(parents=True, exist_ok=True)
        for key in (self.root / "ssh" / "host", keys / "id"):
            if not key.exists():
                run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
        folder = self.user_home / ".ssh"
        folder.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(keys / "id.pub", folder / "authorized_keys")
        for path in (folder, folder / "authorized_keys"):
            shutil.chown(path, USER, USER)
        (self.root / "ssh" / "sshd_config").write_text(f"""\
Port {self.ssh_port}
ListenAddress 127.0.0.1
HostKey {self.root}/ssh/host
PidFile {self.root}/run/sshd.pid
UsePAM no
StrictModes no
MaxSessions 64
MaxStartups 64
AllowUsers {USER}
SetEnv SLURM_CONF={self.slurm_conf}
""")
        (keys / "config").write_text(
            f"Host local\n HostName 127.0.0.1\n Port {self.ssh_port}\n User {USER}\n"
            f" IdentityFile {keys}/id\n IdentitiesOnly yes\n")

    def write_shims(self):
        """A node downloads uv with curl and then Python 3.10 with uv: it gets what is here instead."""
        shim = self.root / "shim"
        shutil.copy(self.uv, shim / "uv-real")
        (shim / "uv-wrap").write_text(
            "#!/bin/bash\nargs=()\n"
            'for arg; do [ "$arg" != 3.10 ] || arg=/usr/bin/python3; args+=("$arg"); done\n'
            f'exec {shim}/uv-real "${{args[@]}}"\n')
        copy = f'mkdir -p \\"\\$UV_INSTALL_DIR\\"; cp {shim}/uv-wrap \\"\\$UV_INSTALL_DIR/uv\\"'
        (shim / "curl").write_text(
            '#!/bin/bash\ncase "$*" in\n'
            f'*uv/install.sh*) echo "{copy}" ;;\n*) exec /usr/bin/curl "$@" ;;\nesac\n')
        for path in shim.iterdir():
            path.chmod(0o755)
        network = {name: value for name, value in os.environ.items() if NETWORK.match(name)}
        network.update(UV_CACHE_DIR=f"{self.root}/cache/uv", PIP_CACHE_DIR=f"{self.root}/cache/pip")
        profile = [f"export {name}={shlex.quote(value)}" for name, value in network.items()]
        profile.append(f"export SLURM_CONF={self.slurm_conf} PATH={shim}:$PATH")
        # Both nodes are one host: each listens at its own address.
        profile.append('[ -z "$SLURMD_NODENAME" ] || '
                       'export LORRY_HOST=$(getent hosts "$SLURMD_NODENAME" | cut -d" " -f1)')
        path = self.user_home / ".bash_profile"
        path.write_text("\n".join(profile) + "\n")
        shutil.chown(path, USER, USER)

    def write_sky_home(self):
        """Jobs and services are steered by the API server itself, not by machines of their own."""
        (self.sky_home / ".sky").mkdir(parents=True, exist_ok=True)
        (self.sky_home / ".sky" / "config.yaml").write_text(
            "jobs: {controller: {consolidation_mode: true}}\n"
            "serve: {controller: {consolidation_mode: true}}\n")

    def start(self):
        run_dir, conf = self.root / "run", self.slurm_conf
        key = run_dir / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        run("munged", "--force", f"--key-file={key}", f"--socket={run_dir}/munge.socket",
            f"--pid-file={run_dir}/munged.pid", f"--log-file={self.root}/log/munged.log",
            f"--seed-file={run_dir}/munge.seed", stderr=subprocess.DEVNULL)
        pathlib.Path("/run/sshd").mkdir(exist_ok=True)
        run("/usr/sbin/sshd", "-f", self.root / "ssh" / "sshd_config")
        run("slurmctld", "-f", conf)
        for node in NODES:
            run("slurmd", "-f", conf, "-N", node)
        self.wait_for_nodes()

    def wait_for_nodes(self):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            states = self.slurm("sinfo", "-h", "-N", "-o", "%t", check=False).split()
            if states == ["idle"] * len(NODES):
                return
            time.sleep(0.5)
        sys.exit(f"Slurm's nodes are not idle: {states}; see {self.root}/log")

    # ---- use -----------------------------------------------------------------------------------

    def slurm(self, *command, check=True):
        """The output of one of Slurm's programs."""
        done = subprocess.run(command, env={**os.environ, "SLURM_CONF": str(self.slurm_conf)},
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if check and done.returncode != 0:
            sys.exit(f"{' '.join(command)}: {done.stdout}")
        return done.stdout

    # ---- down ----------------------------------------------------------------------------------

    def down(self):
        if self.slurm_conf.exists():
            for job in self.slurm("squeue", "-h", "-o", "%i", check=False).split():
                self.slurm("scancel", job, check=False)
            time.sleep(6)  # KillWait
        self.kill_sky()
        for name in ("slurmd-n1", "slurmd-n2", "slurmctld", "sshd", "munged"):
            self.stop(self.root / "run" / f"{name}.pid")
        self.remove_user()
        hosts = pathlib.Path("/etc/hosts")
        lines = hosts.read_text().splitlines(keepends=True)
        if any(HOSTS_MARK in line for line in lines):
            hosts.write_text("".join(line for line in lines if HOSTS_MARK not in line))
        shutil.rmtree(self.root, ignore_errors=True)

    @staticmethod
    def stop(pid_file):
        with contextlib.suppress(OSError, ValueError):
            pid = int(pid_file.read_text())
            os.kill(pid, signal.SIGTERM)
            end = time.monotonic() + 10
            while time.monotonic() < end:
                os.kill(pid, 0)
                time.sleep(0.1)
            os.kill(pid, signal.SIGKILL)

    def kill_sky(self):
        """SkyPilot's API server leaves its workers behind when it is stopped while they work."""
        mark = f"HOME={self.sky_home}".encode()
        for process in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)

    def remove_user(self):
        with contextlib.suppress(KeyError):
            uid = pwd.getpwnam(USER).pw_uid
            for sig in (signal.SIGTERM, signal.SIGKILL):
                for process in pathlib.Path("/proc").iterdir():
                    with contextlib.suppress(OSError, ValueError):
                        if process.stat().st_uid == uid:
                            os.kill(int(process.name), sig)
                time.sleep(1)
            # SkyPilot keeps uv's cache and a cluster's state there.
            for path in [*pathlib.Path("/tmp").iterdir(), *pathlib.Path("/dev/shm").iterdir()]:
                with contextlib.suppress(OSError):
                    if path.lstat().st_uid == uid:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
            subprocess.run(["userdel", USER], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    verb, directory = sys.argv[1:3]
    machine = Machine(directory, shutil.which("uv") or os.environ.get("UV"))
    machine.up() if verb == "up" else machine.down()
