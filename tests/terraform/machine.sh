#!/bin/sh
# machine.sh FOLDER COMMAND...: runs the command on a machine of its own, as far as its disk goes: /etc, /var/lib and /usr/local are those
# of FOLDER. The machine's network is the namespace that this runs in, and its umask the usual one.
set -eu
umask 022
folder=$1
shift
mount --make-rprivate /
for place in etc var/lib usr/local; do
    mount --bind "$folder/$place" "/$place"
done
exec env -i PATH="$folder/bin:/usr/sbin:/usr/bin:/sbin:/bin" MACHINE="$folder" AWS_ENDPOINT_URL=http://169.254.169.254 "$@"
