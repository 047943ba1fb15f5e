#!/bin/sh
# First process of a user-mode-linux guest: loads what the tests need, runs pytest, and turns the guest off.
# The guest's root is the host's file system, read-only; what is written goes to memory. /tmp stays the host's: the
# repository may lie below it.
# From the kernel's command line: SB_REPOSITORY, SB_PYTHON, SB_MODULES, SB_TESTS (arguments for pytest).
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/dev/shm TMPDIR=/dev/shm
export PYTHONDONTWRITEBYTECODE=1 SPLITBRAIN_IN_GUEST=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/shm
for directory in /run /dev/shm; do mount -t tmpfs tmpfs $directory; done
mkdir -p /dev/shm/modules/lib
ln -s "$SB_MODULES" /dev/shm/modules/lib/modules
for module in sch_netem sch_htb cls_u32 veth bridge nfnetlink_queue xt_NFQUEUE nft_compat iptable_mangle; do
  modprobe -d /dev/shm/modules $module || echo "no module $module"
done
ip link set lo up
echo "guest kernel $(uname -r)"
cd "$SB_REPOSITORY" || exit 1
# Spaces separate arguments; none of them contains one.
# shellcheck disable=SC2086
"$SB_PYTHON" -m pytest -p no:cacheprovider -q -rA --tb=short $(echo "$SB_TESTS" | tr , ' ') </dev/null 2>&1
echo "guest pytest exit code $?"
sync
echo o > /proc/sysrq-trigger
sleep 10
