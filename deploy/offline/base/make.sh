#!/bin/bash
# make.sh IMAGE: Debian bookworm made by debootstrap and imported under the name that Dockerfiles start from, set up to
# reach what this machine reaches: its mirrors, proxies, certificates and credentials for them. For root.
set -euo pipefail

image=$1
suite=bookworm
export DEBIAN_FRONTEND=noninteractive
root=$(mktemp -d /var/tmp/trainyard-base.XXXXXX)
chmod 0755 "$root"
trap 'rm -rf --one-file-system "$root"' EXIT

# What this machine's apt knows of the suite, one repository a line; nothing where the machine runs another one.
sources() {
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' 'Origin: Debian' 2>/dev/null | grep -E " $suite(-updates|-security)? main$" | sort -u
}

bootstrap() {
    # Without a known mirror, debootstrap takes its own default.
    local mirror=${DEBIAN_MIRROR:-$(sources | awk -v suite="$suite" '$2 == suite { print $1; exit }')}
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" ${mirror:+"$mirror"} >/dev/null
}

import_apt() {
    if [ -n "$(sources)" ]; then
        sources | awk '{ print "deb", $1, $2, $3 }' >"$root/etc/apt/sources.list"
    fi
    apt-config dump | grep -E '^Acquire::(http|https|Retries|Check-Valid-Until|Check-Date|ForceIPv[46])(::|[[:space:]])' \
        >"$root/etc/apt/apt.conf.d/90machine" || true
    cp -a /etc/apt/auth.conf "$root/etc/apt/" 2>/dev/null || true
    cp -a /etc/apt/auth.conf.d/. "$root/etc/apt/auth.conf.d/" 2>/dev/null || true
    # Official images have the same: no documentation, no lists, and packages start no services.
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod +x "$root/usr/sbin/policy-rc.d"
    printf 'path-exclude /usr/share/%s\n' 'doc/*' 'man/*' 'info/*' 'locale/*' >"$root/etc/dpkg/dpkg.cfg.d/slim"
    printf 'path-include /usr/share/doc/*/copyright\n' >>"$root/etc/dpkg/dpkg.cfg.d/slim"
    printf 'Acquire::Languages "none";\nAPT::Install-Recommends "false";\n' >"$root/etc/apt/apt.conf.d/80slim"
}

import_certificates() {
    # The bundle as a whole counts as one local certificate, so that later updates keep it.
    cp /etc/ssl/certs/ca-certificates.crt "$root/usr/local/share/ca-certificates/machine.crt"
    chroot "$root" update-ca-certificates >/dev/null 2>&1
}

import_pip() {
    cp -L /etc/pip.conf "$root/etc/pip.conf" 2>/dev/null || true
    local index
    index=$(python3 -m pip config get global.index-url 2>/dev/null || echo "${PIP_INDEX_URL:-}")
    if [ -n "$index" ] && [ ! -e "$root/etc/pip.conf" ]; then
        printf '[global]\nindex-url = %s\n' "$index" >"$root/etc/pip.conf"
    fi
    # uv reads none of pip's files.
    mkdir -p "$root/etc/uv"
    if [ -e /etc/uv/uv.toml ]; then
        cp -L /etc/uv/uv.toml "$root/etc/uv/uv.toml"
    elif [ -n "${UV_DEFAULT_INDEX:-$index}" ]; then
        printf '[[index]]\nurl = "%s"\ndefault = true\n' "${UV_DEFAULT_INDEX:-$index}" >"$root/etc/uv/uv.toml"
    fi
}

import_go() {
    command -v go >/dev/null || return 0
    mkdir -p "$root/root/.config/go"
    go env GOPROXY GOSUMDB GONOSUMDB GONOPROXY GOPRIVATE GOINSECURE |
        paste -d= <(printf '%s\n' GOPROXY GOSUMDB GONOSUMDB GONOPROXY GOPRIVATE GOINSECURE) - |
        grep -v '=$' >"$root/root/.config/go/env"
}

slim() {
    chroot "$root" apt-get clean
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/{apt,debconf}/* "$root"/var/log/* \
        "$root"/usr/share/{man,info,locale}/*
    find "$root/usr/share/doc" -type f ! -name copyright -delete
    find "$root/usr/share/doc" -type l -delete
    find "$root/usr/share/doc" -type d -empty -delete
    mkdir -p "$root/var/cache/apt/archives/partial"
}

bootstrap
import_apt
import_certificates
import_pip
import_go
if [ -n "$(sources)" ]; then
    chroot "$root" apt-get update -q >/dev/null
    chroot "$root" apt-get upgrade -y -q >/dev/null 2>&1
fi
slim
tar --numeric-owner -C "$root" -c . | docker import --change 'CMD ["bash"]' --message 'debootstrap minbase' - "$image"
