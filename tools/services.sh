#!/bin/sh
# Makes sure that the servers the tests start for themselves are installed.
#
# As root on Debian they are installed from its packages; elsewhere this says what to install. It
# never leaves a system service running: the tests start servers of their own, on ports of their own.
# Exit: 1 if one is missing and cannot be installed and CI is set; 0 otherwise (tests that need it skip).
set -eu

# command or file:package, one a line
SERVICES="
redis-server:redis-server
java:default-jre-headless
/usr/share/java/zookeeper.jar:zookeeper
/usr/lib/rabbitmq/bin/rabbitmq-server:rabbitmq-server
chromium:chromium
openssl:openssl
cc:gcc
/usr/include/stdlib.h:libc6-dev
"

missing=""
for service in $SERVICES; do
    [ -e "${service%%:*}" ] || command -v "${service%%:*}" >/dev/null 2>&1 || missing="$missing ${service##*:}"
done
[ -n "$missing" ] || exit 0

install_from_debian() {
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        # Debian starts a service it installs, unless this file says no.
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null >/dev/null || return 1
    # shellcheck disable=SC2086 - a list of packages
    apt-get install -y -qq --no-install-recommends $missing </dev/null >/dev/null || return 1
}

if [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing$missing"
    if install_from_debian; then
        exit 0
    fi
fi

echo "missing:$missing" >&2
echo "  Debian, Ubuntu:  sudo apt-get install$missing; of what it starts, nothing is needed" >&2
echo "  Fedora:          sudo dnf install redis java-headless rabbitmq-server chromium" >&2
echo "  macOS:           brew install redis zookeeper rabbitmq chromium" >&2
echo "  ZooKeeper elsewhere: HA_TEST_ZOOKEEPER='<its folder>/lib/*', the class path of its jars" >&2
echo "  RabbitMQ elsewhere:  HA_TEST_RABBITMQ=<path of rabbitmq-server, not a wrapper that changes the user>" >&2
if [ -n "${CI:-}" ]; then
    exit 1
fi
echo "  Tests that need it are skipped." >&2
