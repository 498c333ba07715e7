"""Objects of the store as clients see them: without what only the cluster itself needs, and without any secret."""

from __future__ import annotations

from functools import lru_cache

from msgspec.structs import replace

from agent.api.conversion import shown_spec, shown_template, with_defaults
from agent.api_types.common import TLSInfo
from agent.api_types.secret import Secret
from agent.api_types.service import Service, ServiceStatus
from agent.api_types.swarm import Cluster, ClusterInfo, JoinTokens, Swarm
from agent.api_types.task import Task
from agent.pki.root import RootCA
from agent.pki.tokens import join_token
from agent.store.tables import StoreObject


def service_view(service: Service, *, insert_defaults: bool = False, status: ServiceStatus | None = None) -> Service:
    """A service without the versions of its specs, which are ours."""
    spec = with_defaults(service.spec) if insert_defaults else service.spec
    previous = service.previous_spec
    return replace(
        service,
        spec=shown_spec(spec),
        previous_spec=None if previous is None else shown_spec(previous),
        service_status=status,
        spec_version=None,
        previous_spec_version=None,
    )


def task_view(task: Task) -> Task:
    """A task without what it remembers of its service, and without credentials."""
    spec = shown_template(task.spec)
    return replace(task, spec=spec, spec_version=None, service_annotations=None, endpoint=None, start_after="")


def without_credentials(obj: StoreObject) -> object:
    """An object as a whole, but for what no client may see: data of secrets, keys, registries' credentials."""
    match obj:
        case Secret():
            return secret_view(obj)
        case Cluster():
            return cluster_view(obj)
        case Task():
            return replace(obj, spec=shown_template(obj.spec))
        case Service():
            previous = obj.previous_spec
            return replace(
                obj, spec=shown_spec(obj.spec), previous_spec=None if previous is None else shown_spec(previous)
            )
        case _:
            return obj


def secret_view(secret: Secret) -> Secret:
    """A secret without its data, which never leaves the cluster but for a task's node."""
    return replace(secret, spec=replace(secret.spec, data=b""))


def cluster_view(cluster: Cluster) -> ClusterInfo:
    """The swarm as `/info` shows it."""
    authority = replace(cluster.spec.ca_config, signing_ca_cert="", signing_ca_key="")
    return ClusterInfo(
        id=cluster.id,
        version=cluster.version,
        created_at=cluster.created_at,
        updated_at=cluster.updated_at,
        spec=replace(cluster.spec, ca_config=authority),
        tls_info=_tls_info(cluster),
        root_rotation_in_progress=cluster.root_rotation is not None,
        default_addr_pool=cluster.default_addr_pool or None,
        subnet_size=cluster.subnet_size,
        data_path_port=cluster.data_path_port,
    )


def swarm_view(cluster: Cluster) -> Swarm:
    """The swarm as `GET /swarm` shows it, with the join tokens."""
    info = cluster_view(cluster)
    digest = _root(cluster.ca_cert).digest
    tokens = JoinTokens(
        worker=join_token(digest, cluster.worker_secret), manager=join_token(digest, cluster.manager_secret)
    )
    return Swarm(
        id=info.id,
        version=info.version,
        created_at=info.created_at,
        updated_at=info.updated_at,
        spec=info.spec,
        tls_info=info.tls_info,
        root_rotation_in_progress=info.root_rotation_in_progress,
        default_addr_pool=info.default_addr_pool,
        subnet_size=info.subnet_size,
        data_path_port=info.data_path_port,
        join_tokens=tokens,
    )


def _tls_info(cluster: Cluster) -> TLSInfo:
    """While the root is rotated: the old one is still trusted, the new one signs already."""
    trusted = _root(cluster.ca_cert).tls_info()
    if cluster.root_rotation is None:
        return trusted
    signer = _root(cluster.root_rotation.ca_cert).tls_info()
    return replace(
        trusted,
        cert_issuer_subject=signer.cert_issuer_subject,
        cert_issuer_public_key=signer.cert_issuer_public_key,
    )


@lru_cache(maxsize=16)
def _root(cert_pem: str) -> RootCA:
    """The root certificate; parsed once, since `/info` is asked for with every command of the docker CLI."""
    return RootCA.from_pem(cert_pem.encode())
