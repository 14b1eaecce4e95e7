"""What cloud-init does with user data at the first start of a machine: `python first_boot.py USER_DATA`, by machine.sh.

Files are written, commands run. Packages are left out: they are on the machine that tests run on.
"""

import os
import subprocess
import sys

import yaml


def main():
    with open(sys.argv[1]) as file:
        data = yaml.safe_load(file)
    for command in data["bootcmd"]:
        subprocess.run(command, check=True)
    for entry in data["write_files"]:
        os.makedirs(os.path.dirname(entry["path"]), exist_ok=True)
        with open(entry["path"], "w") as file:
            file.write(entry["content"])
        os.chmod(entry["path"], int(entry["permissions"], 8))
    for command in data["runcmd"]:
        subprocess.run(command, check=True)


main()
