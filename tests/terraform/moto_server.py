"""moto as a server, with two answers put right that the provider of AWS cannot read: `python moto_server.py PORT`."""

import sys

from moto.ec2.models.instances import Instance
from moto.ec2.models.subnets import Subnet
from moto.server import main


prepare = Instance.prep_nics


def prep_nics(self, *arguments, **named):
    """An instance has the security groups of its first network interface, also where they were asked for with that interface."""
    prepare(self, *arguments, **named)
    if not self.security_groups:
        self.security_groups = list(self.nics[0].group_set)


def associations(self):
    """The IPv6 networks of a subnet, whose state is a word, and not an object within the object."""
    return [
        {
            "ipv6CidrBlock": association["ipv6CidrBlock"],
            "associationId": association["associationId"],
            "ipv6CidrBlockState": {"state": association["ipv6CidrBlockState"]["State"]},
        }
        for association in self.ipv6_cidr_block_associations.values()
        if association["ipv6CidrBlockState"]["State"] == "associated"
    ]


Instance.prep_nics = prep_nics
Subnet.ipv6_cidr_block_association_set = property(associations)

main(["-H", "127.0.0.1", "-p", sys.argv[1]])
