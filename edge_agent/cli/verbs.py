"""The table of verbs: what each does, and its options."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable

from edge_agent.cli import (
    archive,
    arguments,
    ask,
    describe,
    device,
    imagine,
    listen,
    mcp,
    models,
    publish,
    record,
    rollout,
    samples,
    serve,
    service,
    teach,
    understand,
    update,
    workshop,
)
from edge_agent.cli.options import bench_options, demo_options

CONFIG = "TOML file (default: $EDGE_AGENT_CONFIG, else that of the service, /etc/edge-agent/agent.toml)"


def _run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("-c", "--config", help=CONFIG)
    run.add_argument("--pull", action="store_true", help="fetch models that are not here")


def _check_options(check: argparse.ArgumentParser) -> None:
    check.add_argument("-c", "--config", help=CONFIG)
    check.add_argument("--connect", action="store_true", help="try: log in, ask for rights, take a picture, write")
    check.add_argument("--notify", nargs="?", const="", metavar="NAME", help="send each [[notify]], or one, a message")


def _install_options(install: argparse.ArgumentParser) -> None:
    install.add_argument("-c", "--config", help="TOML file that it is to have (default: one to begin with)")
    _service_options(install)


def _uninstall_options(uninstall: argparse.ArgumentParser) -> None:
    uninstall.add_argument("--purge", action="store_true", help="delete its config and data, too; asks for a word")
    _service_options(uninstall)


def _backup_options(backup: argparse.ArgumentParser) -> None:
    backup.add_argument("out", metavar="FILE", help="e.g. porch.tar.gz; for you alone, as it holds secrets")
    backup.add_argument("-c", "--config", help=CONFIG)


def _restore_options(restore: argparse.ArgumentParser) -> None:
    restore.add_argument("file", metavar="FILE", help="what `backup` wrote")
    restore.add_argument("-c", "--config", help="where the config goes (default: /etc/edge-agent/agent.toml)")
    restore.add_argument("--store", metavar="FOLDER", help="in which folder `outbox` is to be (default: the home)")
    restore.add_argument("--other-device", action="store_true", help="take another device's place")


def _service_options(of: argparse.ArgumentParser) -> None:
    of.add_argument("--root", default="/", metavar="FOLDER", help="that of an image that is being built")
    of.add_argument("--user", default="edge-agent", metavar="NAME", help="whom it runs as; made where there is none")
    of.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")


def _detect(args: argparse.Namespace) -> int:
    from edge_agent.cli.detect import detect

    return detect(args)


def _detect_options(detect: argparse.ArgumentParser) -> None:
    detect.add_argument("model", help="name, folder, .onnx or .tflite; `detector`: the best that is here")
    detect.add_argument(
        "image",
        nargs="+",
        help="picture, film, folder, 'glob', address (http://, rtsp://, camera:0); -: such, a line each, on stdin",
    )
    detect.add_argument("--save", metavar="OUT", help="draw the boxes: a .jpg for one picture, a folder for several")
    detect.add_argument(
        "--frames", type=arguments.count, metavar="N", help="so many of each film and camera (default: all)"
    )
    detect.add_argument(
        "--seconds", type=arguments.seconds, metavar="S", help="so long (default: to the end, or Ctrl-C)"
    )
    detect.add_argument("--score", help="0..1, lowest score that counts (default: the manifest's)")
    detect.add_argument("--iou", help="0..1, overlap above which NMS drops a box (default: the manifest's)")
    detect.add_argument("--classes", help="comma-separated names; default all")
    detect.add_argument(
        "--track", action="store_true", help="number the things of films and cameras: each box says which"
    )
    _model_options(detect)


def _understand_options(understand: argparse.ArgumentParser) -> None:
    understand.add_argument("model", help="name, name?option=value or folder; `encoder`: the best that is here")
    texts = "texts; - or none: the lines of stdin. Of a model that hears or reads: "
    help = texts + "file, folder, 'glob', address (microphone:NAME, camera:0, pipe:); -: such, a line each, on stdin"
    understand.add_argument("text", nargs="*", metavar="INPUT", help=help)
    understand.add_argument(
        "--then",
        action="append",
        default=[],
        metavar="TASK:MODEL",
        help="do this with the text (may be repeated)",
    )
    understand.add_argument(
        "--seconds", type=arguments.seconds, metavar="S", help="so long (default: to the end, or Ctrl-C)"
    )
    tasks = "classify, embed, tag, fill, follows, answer, similar, topics, summarize (default: what the model is for)"
    understand.add_argument("--task", metavar="NAME", help=tasks)
    understand.add_argument("--labels", metavar="FILE", help="classify: TOML, [labels], name = [example sentences]")
    understand.add_argument("--embed", action="store_true", help="as --task embed: print each text's vector")
    understand.add_argument("--context", metavar="PLACE", help="answer: the text file, or folder of such, to look in")
    understand.add_argument("--store", metavar="NAME", help="similar: the stored sentences to look among")
    keeping = understand.add_mutually_exclusive_group()
    keeping.add_argument("--add", action="store_true", help="similar: store the texts")
    keeping.add_argument("--remove", action="store_true", help="similar: take the texts out of the store")
    keeping.add_argument("--list", action="store_true", help="similar: print what is stored")
    understand.add_argument("--repair", action="store_true", help="fill: mend words that seem misread or misheard")
    understand.add_argument(
        "--top", type=arguments.count, metavar="N", help="fill, answer, similar, summarize: so many at most"
    )
    _model_options(understand)


def _listen_options(heard: argparse.ArgumentParser) -> None:
    listen.broker_options(heard)
    heard.add_argument("--device", default="+", help="one device's id (default: all)")
    heard.add_argument("--seconds", type=arguments.seconds, help="end by itself")
    heard.add_argument("--json", action="store_true", help="print the messages as they are, one a line")
    heard.add_argument("--ack", action="store_true", help="acknowledge each event to its device")
    heard.add_argument("--sign", metavar="PEM", help="with --ack: sign with this Ed25519 private key")
    heard.add_argument("--audit", action="store_true", help="count, and say at the end whether anything is missing")
    heard.add_argument("--online", action="store_true", help="say at the end which devices are there; 1 if one is not")
    heard.add_argument("--quiet", action="store_true", help="with --audit or --online: print only that")


def _doctor_options(doctor: argparse.ArgumentParser) -> None:
    doctor.add_argument("-c", "--config", help=f"try this config, too: {CONFIG}")
    doctor.add_argument("--json", action="store_true", help="print one JSON list of rows, and nothing else")
    doctor.add_argument("--cameras", action="store_true", help="look only for cameras of the network (ONVIF): asks it")
    doctor.add_argument("--credentials", metavar="FILE", help="user:password of the cameras, one line of a file")


def _workshop_options(name: str) -> Callable[[argparse.ArgumentParser], None]:
    """The options of a recipe of the workshop, which only its own verb loads."""

    def add(of: argparse.ArgumentParser) -> None:
        if name == "train":
            importlib.import_module("edge_agent.workshop.train").add_arguments(of)
            return
        getattr(importlib.import_module("edge_agent.workshop.arguments"), name)(of)
        if name == "evaluate":
            of.add_argument("--card", action="store_true", help="keep figures and worst pictures for the page's card")
        _model_options(of)

    return add


def _model_options(of: argparse.ArgumentParser) -> None:
    of.add_argument("--json", action="store_true", help="print one JSON object a line, and nothing else")
    of.add_argument("--pull", action="store_true", help="fetch the model's files when they are not here")
    of.add_argument("--threads", type=arguments.count, default=0, help="for one run; 0: all cores (default)")


def _input_options(to: argparse.ArgumentParser) -> None:
    """What a user may say of how pictures go into a bare file."""
    scale = "how a pixel x goes in: 0..1, 0..255, -1..1, imagenet, caffe, or a number: (x * scale - mean) / std"
    to.add_argument("--scale", metavar="RANGE", help=scale)
    in_pixels = "one number or three as 1,2,3, for pixels in 0..1 where no number is above 1 and no --scale is given"
    to.add_argument("--mean", metavar="NUMBERS", help=in_pixels)
    to.add_argument("--std", metavar="NUMBERS", help="as --mean")
    to.add_argument("--channels", choices=("RGB", "BGR"), help="the order in which the colours go in")


def _models_options(kept: argparse.ArgumentParser) -> None:
    each = kept.add_subparsers(dest="models_verb", required=True, metavar="VERB")
    listed = each.add_parser("list", help="what is here and what can be had")
    listed.add_argument("--json", action="store_true")
    each.add_parser("pull", help="fetch a model's files and check their hashes").add_argument("name", nargs="+")
    inspect = each.add_parser("inspect", help="read a model, bare files too, and say what it is and why")
    inspect.add_argument("model")
    inspect.add_argument("--json", action="store_true")
    proof = "a picture of what the model detects, to try on it what a bare file leaves open (may be repeated)"
    inspect.add_argument("--proof", action="append", default=[], metavar="PICTURE", help=proof)
    _input_options(inspect)
    add = each.add_parser("add", help="take a file or a folder into the registry")
    add.add_argument("file")
    add.add_argument("--name")
    add.add_argument("--proof", action="append", default=[], metavar="PICTURE", help=proof)
    _input_options(add)
    verify = each.add_parser("verify", help="check every file against its hash")
    verify.add_argument("name", nargs="?")
    verify.add_argument("--prove", action="store_true", help="let one model prove again that its answers make sense")
    each.add_parser("remove", help="delete a model's fetched or added files").add_argument("name")
    each.add_parser("rollback", help="go back to the version that served before").add_argument("name")
    collected = each.add_parser(
        "gc", help="delete files that no current or previous version uses, and the rests of killed pulls"
    )
    for verb in each.choices.values():
        arguments.common_options(verb)
    collected.add_argument("--budget", type=arguments.bytes, metavar="BYTES", help="keep up to so much (e.g. 500M)")


LONG = {
    "ask",
    "publish",
    "update",
    "teach",
    "train",
    "evaluate",
    "quantize",
    "graph",
    "prune",
    "tune",
    "bench",
    "check",
}
LONG |= {"describe"}
LONG |= {f"models {verb}" for verb in ("pull", "inspect", "add", "verify")}
"""verbs that may work for long before they print anything"""
Verb = tuple[Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None], str]


def _recipe(name: str, says: str) -> Verb:
    """A verb of the workshop."""
    return getattr(workshop, name, workshop.make), _workshop_options(name), says


VERBS: dict[str, Verb] = {
    "run": (device.run, _run_options, "run the agent of a config"),
    "check": (device.check, _check_options, "check a config: keys, sources, models, secrets"),
    "describe": (describe.describe, describe.options, "what a config will cost: processor, memory, bytes a day, heat"),
    "install": (service.install, _install_options, "make it a service of this device, hardened, and start it"),
    "uninstall": (service.uninstall, _uninstall_options, "stop the service and take it away; data stays"),
    "backup": (service.backup, _backup_options, "write config, models and the events that wait into one file"),
    "restore": (service.restore, _restore_options, "put back what backup wrote"),
    "enroll": (
        service.enroll,
        service.enroll_options,
        "make a key and a request for a certificate, or take a token or a QR code",
    ),
    "demo": (device.demo, demo_options, "run the main job on carried pictures and text, through a broker and back"),
    "detect": (_detect, _detect_options, "find objects in pictures, folders, films and cameras"),
    "understand": (
        understand.understand,
        _understand_options,
        "label, tag, complete or compare text, ask it; get the text of sounds and pictures",
    ),
    "teach": (teach.teach, teach.options, "teach a state (gate open, gate shut) from a few pictures of each"),
    "train": _recipe("train", "train a model on your own pictures or text (extra [train])"),
    "publish": (publish.publish, publish.publish_options, "sign a model, config, files or the program for a fleet"),
    "repository": (publish.repository, publish.repository_options, "make and sign a fleet's repository: keys, teams"),
    "update": (update.update, update.update_options, "take what the fleet's repository offers this device, now"),
    "imagine": (imagine.imagine, imagine.options, "draw what a generative model holds to be usual, as one picture"),
    "evaluate": _recipe("evaluate", "measure a model on labels, and against the model it was made from"),
    "quantize": _recipe("quantize", "make a model smaller and faster, and know what it cost"),
    "graph": _recipe("graph", "simplify a network, take its preparation in, write .ort and TFLite files"),
    "prune": _recipe("prune", "take out weights or channels of a model, and know what it cost"),
    "tune": _recipe("tune", "search input size, variant, NMS and score for the best accuracy in a given time"),
    "bench": (models.bench, bench_options, "time a model's variants on this device, and remember the fastest"),
    "models": (models.models_verb, _models_options, "list, fetch, read, add, check and remove models"),
    "serve": (serve.serve, serve.options, "serve models over HTTP (Open Inference Protocol), without a config"),
    "samples": (samples.samples, samples.samples_options, "look through the frames that were kept, and correct them"),
    "record": (record.record, record.record_options, "keep what a config's pipelines see, hear and read, as it comes"),
    "replay": (
        record.replay,
        record.replay_options,
        "answer a recording once more: does the same come of it?",
    ),
    "rollout": (
        rollout.rollout,
        rollout.options,
        "a signed bundle to a group of devices, in waves",
    ),
    "listen": (listen.listen, _listen_options, "print what devices report"),
    "archive": (
        archive.archive,
        archive.options,
        "keep what many devices report in a database: PostgreSQL, DuckDB, Parquet",
    ),
    "mcp": (mcp.mcp, mcp.options, "let an assistant read the archive: a Model Context Protocol server on stdin"),
    "ask": (ask.ask, ask.options, "search what was seen, heard and read, sum it up, or delete it"),
    "doctor": (device.doctor, _doctor_options, "say what of this machine fits and what is missing"),
}
"""verb -> what it does, its options, its line in --help"""
