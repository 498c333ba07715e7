"""Docker's context files, read only: `contexts/meta/SHA256(name)/meta.json`, keys under `contexts/tls/SHA256(name)/docker`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from swarmtui.docker_api.address import TLSFiles
from swarmtui.docker_api.errors import BadAddress


class _Endpoint(msgspec.Struct):
    host: str = msgspec.field(name="Host", default="")
    skip_verify: bool = msgspec.field(name="SkipTLSVerify", default=False)


class _Metadata(msgspec.Struct):
    description: str = msgspec.field(name="Description", default="")


class _Meta(msgspec.Struct):
    name: str = msgspec.field(name="Name", default="")
    metadata: _Metadata | None = msgspec.field(name="Metadata", default=None)
    endpoints: dict[str, _Endpoint] | None = msgspec.field(name="Endpoints", default=None)


class _ConfigFile(msgspec.Struct):
    current: str = msgspec.field(name="currentContext", default="")


@dataclass(frozen=True, slots=True)
class StoredContext:
    """A context of Docker's."""

    name: str
    host: str
    description: str
    tls: TLSFiles | None


class DockerStore:
    """The folder `~/.docker`. Reads on every call: the docker CLI writes it meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config_file = folder / "config.json"

    def current(self) -> str:
        """The current context's name; "" when none is set."""
        try:
            return msgspec.json.decode(self.config_file.read_bytes(), type=_ConfigFile).current
        except FileNotFoundError:
            return ""
        except (OSError, msgspec.DecodeError) as error:
            raise BadAddress(f"{self.config_file} cannot be read: {error}") from None

    def names(self) -> list[str]:
        """The names of all contexts that can be read."""
        return [meta.name for path in self._meta_files() if (meta := _try_read(path)) is not None and meta.name]

    def find(self, name: str) -> StoredContext | None:
        """The context of that name; BadAddress when its file is not what Docker writes."""
        digest = hashlib.sha256(name.encode()).hexdigest()
        path = self.folder / "contexts" / "meta" / digest / "meta.json"
        if not path.exists():
            return None
        try:
            meta = msgspec.json.decode(path.read_bytes(), type=_Meta)
        except (OSError, msgspec.DecodeError) as error:
            raise BadAddress(f"{path} cannot be read: {error}") from None
        endpoint = (meta.endpoints or {}).get("docker")
        if endpoint is None or not endpoint.host:
            raise BadAddress(f"the context {name!r} names no Docker endpoint ({path})")
        description = meta.metadata.description if meta.metadata else ""
        return StoredContext(name, endpoint.host, description, self._tls(digest, endpoint))

    def _meta_files(self) -> list[Path]:
        return sorted((self.folder / "contexts" / "meta").glob("*/meta.json"))

    def _tls(self, digest: str, endpoint: _Endpoint) -> TLSFiles | None:
        place = self.folder / "contexts" / "tls" / digest / "docker"
        if not place.is_dir():
            return None
        files = {name: path for name in ("ca", "cert", "key") if (path := place / f"{name}.pem").exists()}
        return TLSFiles(files.get("ca"), files.get("cert"), files.get("key"), verify=not endpoint.skip_verify)


def _try_read(path: Path) -> _Meta | None:
    """A context's file, None when it is not one: one broken file must not hide the others from a list."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Meta)
    except (OSError, msgspec.DecodeError):
        return None
