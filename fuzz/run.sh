#!/bin/sh
# Runs the fuzz targets sequentially, each for a time in seconds (default 900): `fuzz/run.sh [SECONDS [TARGET…]]`.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-900}
[ $# -gt 0 ] && shift
python3 fuzz/seeds.py
for target in ${*:-listing onnx image pipeline preprocess scheduler}; do
    case $target in
        listing) options="-max_len=12288 -malloc_limit_mb=64 -dict=fuzz/seeds/listing.dict" ;;
        onnx) options="-max_len=65536 -malloc_limit_mb=64" ;;
        # an image at the limits takes 2 MiB with 16 bits and transparency
        image) options="-max_len=32768 -malloc_limit_mb=64" ;;
        pipeline) options="-max_len=8192 -malloc_limit_mb=64 -dict=fuzz/seeds/pipeline.dict" ;;
        # resizing to a limit of 4096 x 4096 takes 48 MiB in bytes, 192 MiB as numbers
        # and its sanitized loops are slow
        preprocess) options="-max_len=2048 -malloc_limit_mb=256 -timeout=60 -dict=fuzz/seeds/json.dict" ;;
        scheduler) options="-max_len=4096 -malloc_limit_mb=64 -dict=fuzz/seeds/json.dict" ;;
    esac
    mkdir -p "fuzz/found/$target"
    # shellcheck disable=SC2086 # the options are words
    nice -n 10 cargo +nightly fuzz run "$target" "fuzz/found/$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 $options
done
