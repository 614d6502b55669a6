#!/usr/bin/env bash
# Cuts the power of a file system while a run writes its lake, and looks at what is left.
#
#   sudo tests/power_loss.sh PROGRAM [CUTS] [SEED]
#
# The lake is on ext4 in a file. EXT4_IOC_SHUTDOWN without a flush drops everything that is not on the "disk", as a loss of
# power does; then the file system is mounted again, which replays its journal. Every other cut starts from a complete lake
# that is extended, the others from none. After each cut `run` must exit 0 and `verify --deep` must find nothing, with
# nothing deleted by hand. Needs root, for the mounts.
set -euo pipefail

program=$(realpath "$1")
cuts=${2:-30}
RANDOM=${3:-1}
cd "$(dirname "$0")/.."
work=$(mktemp -d)
mount="$work/mount"
mkdir "$mount"
trap 'umount -l "$mount" 2>/dev/null || true; rm -rf "$work"' EXIT

small=(--set 'hard_samples.max_class_count=10' --set 'spectrum.image_guidance=[10,50,90]' --set 'spectrum.seeds=[10]'
  --set 'spectrum.timesteps=10' --set 'filter.max_attempts=2' --set 'curriculum.epochs=5'
  --set 'curriculum.curriculum_epochs=4')
more=("${small[@]}" --set 'spectrum.seeds=[10,20,30]' --set 'hard_samples.max_class_count=20')

run() { "$program" run pipelines/digits_lt.toml --lake "$mount/lake" "$@" > "$work/output" 2>&1; }

cut_power() {
  python3 -I - "$mount" <<'PYTHON'
import fcntl, os, struct, sys
EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH = (2 << 30) | (4 << 16) | (ord("X") << 8) | 125, 2
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
PYTHON
}

truncate -s 400M "$work/empty.img"
mkfs.ext4 -q -F "$work/empty.img"
cp --sparse=always "$work/empty.img" "$work/complete.img"
mount -o loop "$work/complete.img" "$mount"
run "${small[@]}"
umount "$mount"

failed=0
for cut in $(seq "$cuts"); do
  case $((cut % 2)) in
    0) kind="complete lake" from=complete ;;
    *) kind="no lake" from=empty ;;
  esac
  cp --sparse=always "$work/$from.img" "$work/disk.img"
  mount -o loop "$work/disk.img" "$mount"
  after=$((RANDOM % 12)).$((RANDOM % 10))
  run "${more[@]}" & pid=$!
  sleep "$after"
  cut_power
  kill -9 "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
  umount "$mount"
  mount -o loop "$work/disk.img" "$mount"
  files=$(find "$mount" -type f | wc -l)
  empty=$(find "$mount" -type f -size 0 | wc -l)
  again=0
  run "${more[@]}" || again=$?
  [ "$again" = 0 ] || grep -a error "$work/output" || true
  clean=0
  "$program" verify pipelines/digits_lt.toml --deep --lake "$mount/lake" "${more[@]}" > "$work/output" 2>&1 || clean=$?
  [ "$clean" = 0 ] || head -3 "$work/output"
  umount "$mount"
  echo "cut $cut, $kind, after $after s: $files files, $empty of them empty; run: $again, verify: $clean"
  [ "$again$clean" = 00 ] || failed=$((failed + 1))
done
echo "$failed of $cuts cuts left a lake that is not sound"
[ "$failed" = 0 ]
