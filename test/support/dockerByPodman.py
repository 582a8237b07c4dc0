#!/usr/bin/env python3
"""docker and docker compose, as far as this project's pages use them, by buildah
and podman: what follows a command's name is handed on as it is, and a service is
started with what its file says. DOCKER_STAND_IN holds the rest as JSON: the
images that stand for those of a registry, the network that stands for the host's,
and where a folder of the host lies in truth."""
import json, os, subprocess, sys, yaml

given = json.loads(os.environ["DOCKER_STAND_IN"])
# podman's own limits are higher than root may set everywhere, and it would want a
# systemd for the health check's timer, and lay a tmpfs of its own over /run.
run = ["podman", *given["options"], "run", "--ulimit", "nofile=1024:1024",
       "--ulimit", "nproc=1024:1024", "--health-interval", "disable"]


def hand_on(*command):
    done = subprocess.run([*command])
    if done.returncode != 0:
        sys.exit(done.returncode)


def build(folder, tag):
    # What has been built of this folder is not built again: a minute, and a copy of all.
    known = subprocess.run(["podman", *given["options"], "image", "exists", tag])
    if os.path.samefile(folder, given["root"]) and known.returncode == 0:
        return
    hand_on("buildah", *given["buildOptions"], "build", "--format", "docker",
            "--pull-never", "--quiet", *given["buildArguments"], "--tag", tag, folder)


def volume(text, beside=None):
    source, *rest = text.split(":")
    if beside and source.startswith("."):
        source = os.path.join(beside, source)
    return ":".join([given["folders"].get(source, source), *rest])


def start(name, service, beside):
    if service.get("network_mode") != "host":
        sys.exit("only a service on the host's network can be started here")
    options = ["--detach", "--name", name, "--network", given["network"]]
    for text in service.get("volumes", []):
        options += ["--volume", volume(text, beside)]
    for text in service.get("tmpfs", []):
        options += ["--tmpfs", text]
    for text in service.get("cap_drop", []):
        options += ["--cap-drop", text]
    for text in service.get("security_opt", []):
        options += ["--security-opt", text.replace(":true", "")]
    if service.get("read_only"):
        options += ["--read-only", "--read-only-tmpfs=false"]
    hand_on(*run, *options, given["prefix"] + service["image"])


match sys.argv[1:]:
    case ["build", "-t", tag, folder]:
        build(folder, given["prefix"] + tag)
    case ["run", *rest]:
        image = next(at for at, word in enumerate(rest)
                     if word == "llamagate" and rest[at - 1] != "--name")
        rest[image] = given["prefix"] + rest[image]
        if "-v" in rest:
            rest[rest.index("-v") + 1] = volume(rest[rest.index("-v") + 1])
        if "--network" in rest:
            rest[rest.index("--network") + 1] = given["network"]
        if "--read-only" in rest:
            rest.insert(0, "--read-only-tmpfs=false")
        hand_on(*run, *rest)
    case ["kill", "--signal", signal, name]:
        hand_on("podman", *given["options"], "kill", "--signal", signal, name)
    case ["compose", "-f", file, *command]:
        services = yaml.safe_load(open(file))["services"]
        beside = os.path.dirname(os.path.abspath(file))
        match command:
            case ["build"]:
                for service in services.values():
                    if "build" in service:
                        build(os.path.join(beside, service["build"]), given["prefix"] + service["image"])
            case ["up", "-d"]:
                for name, service in services.items():
                    start(name, service, beside)
            case ["exec", name, *program]:
                hand_on("podman", *given["options"], "exec", name, *program)
            case ["logs", "--no-log-prefix", name]:
                hand_on("podman", *given["options"], "logs", name)
            case ["kill", "-s", signal, name]:
                hand_on("podman", *given["options"], "kill", "--signal", signal, name)
            case _:
                sys.exit(f"docker compose {command} is not known here")
    case other:
        sys.exit(f"docker {other} is not known here")
