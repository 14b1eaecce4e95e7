"""As much of `systemctl` as the scripts of a machine use, where no systemd runs: it starts a unit as the unit says.

That is: user, capabilities, environment, state folder, and waiting for READY=1. Sandboxes of systemd (ProtectSystem and others) are
left out. A unit's process is in $MACHINE/run/UNIT.pid, its output in $MACHINE/log/UNIT.
"""

import glob
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time

MACHINE = os.environ["MACHINE"]
UNITS = "/etc/systemd/system/"
PATIENCE = 60


def parse(unit):
    """The settings of a unit and its drop-ins: the last of each, but for lists."""
    settings = {}
    for path in [UNITS + unit, *sorted(glob.glob(UNITS + unit + ".d/*.conf"))]:
        with open(path) as file:
            for line in file:
                match = re.fullmatch(r"([A-Za-z]+)=(.*)", line.strip())
                if match:
                    settings[match.group(1)] = match.group(2)
    return settings


def environment(settings):
    variables = {"PATH": os.environ["PATH"]}
    path = settings.get("EnvironmentFile", "-/nowhere")
    if path.startswith("-") and not os.path.exists(path[1:]):
        return variables
    with open(path.lstrip("-")) as file:
        for line in file:
            key, value = line.rstrip("\n").split("=", 1)
            if value.startswith('"'):
                value = re.sub(r"\\(.)", r"\1", value[1:-1])
            variables[key] = value
    return variables


def command_line(settings, variables):
    words = []
    for word in settings["ExecStart"].split():
        words += shlex.split(variables.get(word[1:], "")) if word.startswith("$") else [word]
    if "User" not in settings:
        return words
    bounding = "-all" + "".join(",+" + name[4:].lower() for name in settings["CapabilityBoundingSet"].split())
    given = [name[4:].lower() for name in settings.get("AmbientCapabilities", "").split()]
    ambient = ["--inh-caps=+" + ",+".join(given), "--ambient-caps=+" + ",+".join(given)] if given else []
    who = ["--reuid=" + settings["User"], "--regid=" + settings["Group"], "--init-groups"]
    return ["setpriv", *who, *ambient, "--bounding-set=" + bounding, "--no-new-privs", *words]


def start(unit):
    if unit.endswith(".timer"):
        return
    settings = parse(unit)
    variables = environment(settings)
    if "StateDirectory" in settings:
        folder = "/var/lib/" + settings["StateDirectory"]
        os.makedirs(folder, mode=0o700, exist_ok=True)
        subprocess.run(["chown", "-R", settings["User"] + ":" + settings["Group"], folder], check=True)
    line = command_line(settings, variables)
    if settings["Type"] == "oneshot":
        subprocess.run(line, check=True, env=variables)
        return
    address = "\0%s-%d" % (unit, os.getpid())
    notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notices.bind(address)
    notices.settimeout(PATIENCE)
    variables["NOTIFY_SOCKET"] = "@" + address[1:]
    log = os.path.join(MACHINE, "log", unit)
    with open(log, "a") as output:
        process = subprocess.Popen(line, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    with open(os.path.join(MACHINE, "run", unit + ".pid"), "w") as file:
        file.write(str(process.pid))
    try:
        while "READY=1" not in notices.recv(4096).decode().split("\n"):
            pass
    except TimeoutError:
        with open(log) as file:
            sys.exit("%s is not ready:\n%s" % (unit, file.read()))


def alive(pid):
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def stop(unit):
    path = os.path.join(MACHINE, "run", unit + ".pid")
    if not os.path.exists(path):
        return
    with open(path) as file:
        pid = int(file.read())
    os.remove(path)
    if alive(pid):
        os.kill(pid, signal.SIGTERM)
    limit = time.monotonic() + PATIENCE
    while alive(pid):
        if time.monotonic() > limit:
            sys.exit("%s does not end" % unit)
        time.sleep(0.02)


def main():
    verb, *arguments = sys.argv[1:]
    units = [argument for argument in arguments if not argument.startswith("-")]
    for unit in units:
        if verb in ("start", "restart") or verb == "enable" and "--now" in arguments:
            stop(unit)
            start(unit)
        elif verb == "stop":
            stop(unit)


main()
