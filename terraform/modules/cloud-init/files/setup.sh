#!/bin/sh
# Makes this machine a node of a Turnfleet fleet. cloud-init runs it once, when the machine starts for the first time; what it does
# can be done again: after a fault run it by hand.
set -eu
umask 077

# shellcheck source=/dev/null
. /etc/turnfleet/setup.env
# shellcheck source=cloud.sh
. /usr/local/lib/turnfleet/cloud.sh

make_user() {
    getent passwd turnfleet >/dev/null ||
        useradd --system --user-group --home-dir /var/lib/turnfleet --no-create-home --shell /usr/sbin/nologin turnfleet
}

# Takes the machine's lasting address. The one that it was started with goes, and connections that are open with it.
take_address() {
    if [ -n "$AWS_ADDRESS" ] && [ "$(aws_metadata public-ipv4)" != "$AWS_ADDRESS" ]; then await_predecessor; fi
    instance=$(again 24 aws_metadata instance-id)
    again 24 associate "$instance"
}

# Auto Scaling makes a machine while the one before it drains: that one's calls live by the address, and by the relay's name.
await_predecessor() {
    waited=0
    while [ "$waited" -lt $((DRAIN_SECONDS + 300)) ] && is_served; do
        [ "$waited" -gt 0 ] || say "$AWS_ADDRESS is in use: waiting for the relay there to drain"
        sleep 5
        waited=$((waited + 5))
    done
}

# Whether a relay answers at that address. LISTENER is a transport and a port.
is_served() {
    # shellcheck disable=SC2086
    python3 -c '
import os, socket, sys
address, transport, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
request = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + os.urandom(12)
for _ in range(5):
    try:
        if transport != "udp":
            socket.create_connection((address, port), 1).close()
            sys.exit(0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(1)
            asking.connect((address, port))
            asking.send(request)
            if asking.recv(2048)[8:20] == request[8:]:
                sys.exit(0)
    except OSError:
        pass
sys.exit(1)' "$AWS_ADDRESS" $LISTENER
}

associate() {
    aws_call ec2 --output /dev/null --data-urlencode Action=AssociateAddress --data-urlencode Version=2016-11-15 \
        --data-urlencode "InstanceId=$1" --data-urlencode "AllocationId=$AWS_ELASTIC_IP" --data-urlencode AllowReassociation=true
}

# The disk that outlives the machine. One that holds something is never made anew.
mount_data() {
    again 60 test -b "$DATA_VOLUME"
    if ! blkid "$DATA_VOLUME" >/dev/null; then
        mkfs.ext4 -q -L turnfleet "$DATA_VOLUME"
    fi
    mkdir -p /var/lib/turnfleet
    if ! grep -q ' /var/lib/turnfleet ' /etc/fstab; then
        echo "$DATA_VOLUME /var/lib/turnfleet ext4 defaults,nofail,noatime 0 2" >>/etc/fstab
    fi
    mountpoint -q /var/lib/turnfleet || mount /var/lib/turnfleet
}

install_binary() {
    part=/usr/local/bin/turnfleet.part
    mkdir -p /usr/local/bin
    if [ -n "$BINARY_URL" ]; then
        again 24 curl -sSfL --max-time 300 --output "$part" "$BINARY_URL"
        if ! echo "$BINARY_SHA256  $part" | sha256sum --check --status; then
            say "$BINARY_URL is not what it should be: its SHA-256 is $(sha256sum "$part" | cut -d' ' -f1), $BINARY_SHA256 was expected" >&2
            rm -f "$part"
            return 1
        fi
    else
        again 24 podman pull --quiet "$IMAGE"
        container=$(podman create "$IMAGE")
        podman cp "$container:$IMAGE_BINARY" "$part"
        podman rm "$container" >/dev/null
    fi
    chmod 0755 "$part"
    # Moved into place, so that a process that runs keeps the binary that it runs.
    mv -f "$part" /usr/local/bin/turnfleet
}

make_user
sysctl --quiet --ignore --load /etc/sysctl.d/60-turnfleet.conf || say "not all of the kernel's settings could be set"
if [ -n "$DATA_VOLUME" ]; then mount_data; fi
install_binary
if [ -n "$AWS_SECRET$SECRETS_COMMAND" ]; then /usr/local/lib/turnfleet/secrets.sh; fi
if [ -n "$AWS_ELASTIC_IP" ]; then take_address; fi
chown -R turnfleet:turnfleet /etc/turnfleet
# Root runs what is in these: the service replaces nothing in this folder.
chown root:root /etc/turnfleet/setup.env /etc/turnfleet/firewall.nft
chown root:turnfleet /etc/turnfleet
chmod 0750 /etc/turnfleet

# Every mistake of the configuration at once, where cloud-init's log has it.
/usr/local/bin/turnfleet check-config "$SUBCOMMAND" --config "/etc/turnfleet/$CONFIG.toml"

systemctl daemon-reload
# shellcheck disable=SC2086
systemctl enable --now $UNITS
systemctl enable "$SERVICE.service"
systemctl restart "$SERVICE.service"
say "$SERVICE.service is started"
