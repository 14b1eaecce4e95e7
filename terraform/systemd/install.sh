#!/bin/sh
# Installs Turnfleet on this machine as a service of systemd: the binary, a user of its own, the unit, the kernel's settings and a
# configuration to begin with. It keeps a configuration that is there, starts nothing unless told to, and may be run again, as
# for another version of the binary.
set -eu

usage() {
    cat <<'USAGE'
usage: install.sh [--service up|relay|controller] [--low-ports] [--start] [--root FOLDER] BINARY

  --service   what this machine is: the whole fleet (up), one relay, or a controller   [default: up]
  --low-ports lets the service listen on ports below 1024, such as 443
  --start     starts the service, and with every start of the machine
  --root      installs below FOLDER instead, as for an image; makes no user and starts nothing
USAGE
}

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

service=up
low_ports=
start=
root=
binary=
while [ $# -gt 0 ]; do
    case $1 in
    --service | --root) [ $# -gt 1 ] || { usage >&2 && fail "$1 needs a value"; } ;;
    esac
    case $1 in
    --service) service=$2 && shift ;;
    --low-ports) low_ports=yes ;;
    --start) start=yes ;;
    --root) root=$2 && shift ;;
    --help) usage && exit 0 ;;
    -*) usage >&2 && fail "unknown option $1" ;;
    *) [ -z "$binary" ] || fail "one binary, not $binary and $1"
        binary=$1 ;;
    esac
    shift
done
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
case $service in
up) unit=turnfleet config=turnfleet ;;
relay | controller) unit=turnfleet-$service config=$service ;;
*) fail "--service $service: up, relay or controller was expected" ;;
esac
[ -n "$binary" ] || { usage >&2 && fail "which binary? Build one by cargo build --release: target/release/turnfleet"; }
[ -f "$binary" ] || fail "$binary is no file"
[ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "root is needed to install (or --root FOLDER)"
[ -z "$root" ] || [ -z "$start" ] || fail "--root and --start: a service below another root cannot be started"

# Moved into place, so that a process that runs keeps the binary that it runs.
install -d -m 0755 "$root/usr/local/bin" "$root/etc/systemd/system" "$root/etc/sysctl.d"
install -m 0755 "$binary" "$root/usr/local/bin/turnfleet.part"
mv -f "$root/usr/local/bin/turnfleet.part" "$root/usr/local/bin/turnfleet"

if [ -z "$root" ] && ! getent passwd turnfleet >/dev/null; then
    useradd --system --user-group --home-dir /var/lib/turnfleet --no-create-home --shell /usr/sbin/nologin turnfleet
fi
install -d -m 0750 "$root/etc/turnfleet"
if [ ! -e "$root/etc/turnfleet/$config.toml" ] && [ -f "$here/$config.toml" ]; then
    install -m 0640 "$here/$config.toml" "$root/etc/turnfleet/$config.toml"
fi
if [ -z "$root" ]; then
    chown -R turnfleet:turnfleet /etc/turnfleet
    chown root:turnfleet /etc/turnfleet
fi

install -m 0644 "$here/$unit.service" "$root/etc/systemd/system/$unit.service"
drop_in="$root/etc/systemd/system/$unit.service.d"
if [ -n "$low_ports" ]; then
    install -d -m 0755 "$drop_in"
    install -m 0644 "$here/low-ports.conf" "$drop_in/low-ports.conf"
fi
install -m 0644 "$here/sysctl.conf" "$root/etc/sysctl.d/60-turnfleet.conf"
[ -z "$root" ] || exit 0

# Settings that this kernel does not have, or that belong to the host of a container, are left out.
sysctl --quiet --ignore --load /etc/sysctl.d/60-turnfleet.conf || echo "install.sh: not all of the kernel's settings could be set" >&2
systemctl daemon-reload
echo "Installed. The configuration is /etc/turnfleet/$config.toml."
if [ -n "$start" ]; then
    systemctl enable "$unit.service"
    systemctl restart "$unit.service"
    echo "$unit.service is started; journalctl -u $unit shows what it says."
else
    echo "To start it: systemctl enable --now $unit.service"
fi
