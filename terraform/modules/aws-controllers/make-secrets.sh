#!/bin/sh
# Makes what a fleet keeps secret, in a folder of yours: two authorities with the certificates of controllers and of etcd, the key of the
# store, the join token and the API token. controllers.json and relays.json are what Secrets Manager is given.
#
# What is in the folder stays; certificates are made anew, so run it again before they end, after two years. The authorities' keys
# (ca.key, etcd-ca.key) are in neither file: keep the folder where nobody else reads it.
#
# For turns:, put tls.pem and tls.key into the folder first.
set -eu
umask 077

[ $# -ge 3 ] || {
    echo "usage: make-secrets.sh FOLDER DOMAIN ADDRESS...    the controllers' domain, and the private address of each" >&2
    exit 2
}
folder=$1
domain=$2
shift 2
mkdir -p "$folder"
cd "$folder"

# quietly COMMAND...: openssl tells of its progress; it is heard where it fails.
quietly() {
    "$@" 2>openssl.log || {
        cat openssl.log >&2
        exit 1
    }
    rm openssl.log
}

# authority NAME SUBJECT
authority() {
    [ -f "$1.key" ] || quietly openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj "/CN=$2" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
        -keyout "$1.key" -out "$1.pem"
}

# certificate NAME AUTHORITY ALTERNATIVE-NAMES
certificate() {
    extensions="subjectAltName=$3
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth,clientAuth"
    quietly openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr"
    echo "$extensions" >"$1.ext"
    quietly openssl x509 -req -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -CAcreateserial -days 730 -extfile "$1.ext" -out "$1.pem"
    rm "$1.csr" "$1.ext"
}

# secret NAME FORM: 32 random bytes, in hexadecimal or base64.
secret() {
    [ -f "$1" ] || openssl rand "-$2" 32 >"$1"
}

names="DNS:$domain"
addresses=
index=0
for address in "$@"; do
    names="$names,DNS:c$index.$domain"
    addresses="${addresses:+$addresses,}IP:$address"
    index=$((index + 1))
done
authority ca "Turnfleet controllers"
authority etcd-ca "Turnfleet etcd"
certificate controller ca "$names"
certificate etcd etcd-ca "$addresses"
secret store.key base64
secret join-token hex
secret api-token hex

# bundle OUTPUT FILE...: a JSON object of names and contents.
bundle() {
    python3 -c '
import json, os, sys
json.dump({name: open(name).read() for name in sys.argv[2:] if os.path.exists(name)}, open(sys.argv[1], "w"))' "$@"
}
bundle controllers.json ca.pem controller.pem controller.key etcd-ca.pem etcd.pem etcd.key store.key join-token api-token
bundle relays.json ca.pem join-token tls.pem tls.key
