"""Shapes that several API objects share."""

from __future__ import annotations

from agent.api_types.fields import ApiObject, omitempty


class Version(ApiObject, frozen=True):
    """When an object last changed: the index of the log entry that did it."""

    index: int = omitempty("Index", 0)


class Driver(ApiObject, frozen=True):
    """A named plugin and its options (log driver, IPAM driver, templating)."""

    name: str = omitempty("Name", "")
    options: dict[str, str] = omitempty("Options", {})


class Platform(ApiObject, frozen=True):
    """Processor architecture and operating system, in either of the spellings that Docker mixes (x86_64, amd64)."""

    architecture: str = omitempty("Architecture", "")
    os: str = omitempty("OS", "")


class NamedGenericResource(ApiObject, frozen=True):
    """One item of a set of named things, such as one GPU by its id."""

    kind: str = omitempty("Kind", "")
    value: str = omitempty("Value", "")


class DiscreteGenericResource(ApiObject, frozen=True):
    """A count of things of a kind."""

    kind: str = omitempty("Kind", "")
    value: int = omitempty("Value", 0)


class GenericResource(ApiObject, frozen=True):
    """One of the two forms; exactly one is set."""

    named: NamedGenericResource | None = omitempty("NamedResourceSpec", None)
    discrete: DiscreteGenericResource | None = omitempty("DiscreteResourceSpec", None)


class Resources(ApiObject, frozen=True):
    """What a task reserves, or a node has: CPU in billionths of a core, memory in bytes."""

    nano_cpus: int = omitempty("NanoCPUs", 0)
    memory_bytes: int = omitempty("MemoryBytes", 0)
    generic_resources: list[GenericResource] = omitempty("GenericResources", [])


class Limits(ApiObject, frozen=True):
    """What a task may use at most."""

    nano_cpus: int = omitempty("NanoCPUs", 0)
    memory_bytes: int = omitempty("MemoryBytes", 0)
    pids: int = omitempty("Pids", 0)


class TLSInfo(ApiObject, frozen=True):
    """The root certificate (PEM) and who signed it (base64 of DER), as node and swarm inspect show it."""

    trust_root: str = omitempty("TrustRoot", "")
    cert_issuer_subject: str = omitempty("CertIssuerSubject", "")
    cert_issuer_public_key: str = omitempty("CertIssuerPublicKey", "")
