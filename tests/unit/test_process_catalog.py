"""The images that ship with the product, and which one a name means."""

from __future__ import annotations

import pytest

from agent.worker.executors.images.catalog import (
    IMAGES,
    UnknownImage,
    find_by_id,
    find_image,
    offered,
    parse_reference,
    program_of,
)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("alpine", "alpine:latest"),
        ("alpine:3.19", "alpine:latest"),
        ("library/busybox", "busybox:latest"),
        ("docker.io/library/nginx:1.25", "nginx:latest"),
        ("docker.io/swarmtui/whoami", "swarmtui/whoami:latest"),
        ("index.docker.io/library/httpd", "httpd:latest"),
        ("nginx:alpine@sha256:" + "0" * 64, "nginx:latest"),
        ("swarmtui/whoami@sha256:" + "f" * 64, "swarmtui/whoami:latest"),
        ("swarmtui/web", "swarmtui/web:1.1"),
        ("swarmtui/web:latest", "swarmtui/web:1.1"),
        ("swarmtui/web:1.0", "swarmtui/web:1.0"),
    ],
)
def test_names_match_as_dockers_do(text: str, reference: str) -> None:
    assert find_image(text).reference == reference


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis", "redis:latest"),
        ("redis:7@sha256:abc", "redis:7"),
        ("swarmtui/web:2.0", "swarmtui/web:2.0"),
        ("swarmtui/whoami:0.9", "swarmtui/whoami:0.9"),
        ("localhost:5000/redis", "localhost:5000/redis:latest"),
        ("localhost:5000/alpine", "localhost:5000/alpine:latest"),
        ("quay.io/alpine", "quay.io/alpine:latest"),
    ],
)
def test_another_name_is_refused_with_what_there_is(text: str, shown: str) -> None:
    with pytest.raises(UnknownImage) as caught:
        find_image(text)
    assert str(caught.value).startswith(f"No such image: {shown}; this node runs swarmtui/whoami, ")
    assert offered() in str(caught.value)


@pytest.mark.parametrize("text", ["", "Nginx", "a b", ":1", "nginx:", "nginx:a b", "../x", "-x", "nginx:" + "a" * 129])
def test_a_text_that_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(UnknownImage, match="invalid reference format"):
        parse_reference(text)


def test_every_image_is_found_by_its_name_and_by_its_id() -> None:
    for image in IMAGES:
        assert find_image(image.reference) is image
        assert find_by_id(image.id) is image
        assert find_by_id(image.id[7:19]) is image
    assert find_by_id("abc") is None
    assert find_by_id("f" * 64) is None
    assert len({image.id for image in IMAGES}) == len(IMAGES)


def test_every_image_has_labels_a_command_and_a_path() -> None:
    for image in IMAGES:
        assert image.labels["org.opencontainers.image.title"] == image.name
        assert image.entrypoint or image.command
        assert any(item.startswith("PATH=/") for item in image.env)
        assert bool(image.notice) == image.stand_in


def test_a_program_of_ours_or_one_of_the_host() -> None:
    whoami, nginx, alpine = find_image("swarmtui/whoami"), find_image("nginx"), find_image("alpine")
    assert program_of(whoami, ["/whoami", "--port", "81"]) == ["whoami", "--port", "81"]
    assert program_of(nginx, ["nginx", "-g", "daemon off;"]) == ["page", "nginx"]
    assert program_of(nginx, ["sh", "-c", "nginx"]) is None
    assert program_of(alpine, ["sleep", "1000"]) is None
    assert program_of(alpine, []) is None
